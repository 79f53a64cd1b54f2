"""Decode every image once, and report those that cannot be used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from detseg.annotations.duplicates import shared_content
from detseg.annotations.table import AnnotationTable, Record
from detseg.doctor.findings import Finding
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.runtime.reporter import progress

THREADS = 4
"""Decoders release the GIL; each thread holds one full image in memory."""


def inspect_images(table: AnnotationTable) -> list[Finding]:
    """Decode all images in full, with a progress bar on a terminal.

    Returns corrupt images and images whose size differs from the table, in the order of the table, then images that
    are in two splits of the source. Never raises for a bad image. Images that are not separate files (members of
    archives, frames of videos, images of a dataset object) are not checked. A file of several records is decoded once.
    """
    records = {record.path: record for record in reversed(list(_file_records(table)))}
    ordered = list(reversed(records.values()))
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(progress(pool.map(_inspect, ordered), "decoding images", total=len(ordered)))
    return [*(finding for finding in results if finding is not None), *_in_two_splits(table)]


def _file_records(table: AnnotationTable) -> list[Record]:
    rows = [
        row
        for row in range(len(table))
        if str(table.media[row]) and not str(table.member[row]) and int(table.frame[row]) < 0
    ]
    return [table[row] for row in rows]


def _in_two_splits(table: AnnotationTable) -> list[Finding]:
    splits = {name: table.subset(np.flatnonzero(table.split == name)) for name in sorted(set(table.split.tolist()))}
    return [
        Finding(
            "same image in two splits",
            first,
            f"{first} = {second}: an image used for training is also evaluated, so scores are too high: remove one",
        )
        for first, second in shared_content(splits)
    ]


def _inspect(record: Record) -> Finding | None:
    name = str(record.path)
    try:
        height, width = decode_image(record.path, upright=False).shape[:2]
    except FileNotFoundError:
        return Finding("missing image", name, f"{name}: no such file; restore it, or remove its annotations")
    except (DataError, OSError) as error:
        return Finding("corrupt image", name, str(error))
    if (height, width) == record.stored_hw:
        return None
    annotated = f"{record.stored_hw[1]} x {record.stored_hw[0]}"
    return Finding(
        "wrong size",
        name,
        f"{name}: the file is {width} x {height} pixels (width x height), its annotations specify {annotated}; "
        "correct them, or restore the image that was annotated",
    )
