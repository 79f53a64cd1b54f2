"""Decode every image once, and name those that cannot be used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from detseg.annotations.duplicates import shared_content
from detseg.annotations.table import AnnotationTable, Record
from detseg.doctor.findings import Finding
from detseg.errors import DataError
from detseg.images import decode_image

THREADS = 4
"""Decoders release the interpreter; each thread holds one whole image."""


def inspect_images(table: AnnotationTable) -> list[Finding]:
    """Decode all images in full, with a progress bar on a terminal; the broken ones and those of another size than the
    table says, in the order of the table; then images that are in two parts of the source's own split. Never raises
    for a bad image.

    Images that are no file of their own (members of archives, frames of videos, images of a dataset object) are left
    to their readers. A file that several records name is decoded once.
    """
    records = {record.path: record for record in reversed(list(_files(table)))}
    ordered = list(reversed(records.values()))
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(tqdm(pool.map(_inspect, ordered), "decoding images", total=len(ordered), disable=None))
    return [*(finding for finding in results if finding is not None), *_shared(table)]


def _files(table: AnnotationTable) -> list[Record]:
    plain = [
        row
        for row in range(len(table))
        if str(table.media[row]) and not str(table.member[row]) and int(table.frame[row]) < 0
    ]
    return [table[row] for row in plain]


def _shared(table: AnnotationTable) -> list[Finding]:
    parts = {name: table.subset(np.flatnonzero(table.split == name)) for name in sorted(set(table.split.tolist()))}
    return [
        Finding(
            "same image in two parts",
            first,
            f"{first} = {second}: what is trained on would be scored, too, and look better than it is: remove one",
        )
        for first, second in shared_content(parts)
    ]


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
