"""Decode every image once, and name those that cannot be used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from detseg.annotations.table import AnnotationTable, Record
from detseg.doctor.findings import Finding
from detseg.errors import DataError
from detseg.images import decode_image

THREADS = 4
"""Decoders release the interpreter; each thread holds one whole image."""


def inspect_images(table: AnnotationTable) -> list[Finding]:
    """Decode all images in full, with a progress bar on a terminal; the broken ones and those of another size than the
    table says, in the order of the table. Never raises for a bad image.

    Images that are no file of their own (members of archives, frames of videos, images of a dataset object) are left
    to their readers. A file that several records name is decoded once.
    """
    records = {record.path: record for record in reversed(list(_files(table)))}
    ordered = list(reversed(records.values()))
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(tqdm(pool.map(_inspect, ordered), "decoding images", total=len(ordered), disable=None))
    return [finding for finding in results if finding is not None]


def _files(table: AnnotationTable) -> list[Record]:
    plain = [
        row
        for row in range(len(table))
        if str(table.media[row]) and not str(table.member[row]) and int(table.frame[row]) < 0
    ]
    return [table[row] for row in plain]


def _inspect(record: Record) -> Finding | None:
    name = str(record.path)
    try:
        height, width = decode_image(record.path, upright=False).shape[:2]
    except FileNotFoundError:
        return Finding("missing image", name, f"{name}: no such file; bring it back, or remove its annotations")
    except (DataError, OSError) as error:
        return Finding("broken image", name, str(error))
    if (height, width) == record.stored_hw:
        return None
    stated = f"{record.stored_hw[1]} x {record.stored_hw[0]}"
    return Finding(
        "wrong size",
        name,
        f"{name}: the file is {width} x {height} pixels (width x height), its annotations say {stated}; "
        "correct them, or bring back the image that was annotated",
    )
