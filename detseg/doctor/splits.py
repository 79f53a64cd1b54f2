"""Check the splits that ``train`` makes by default: images in two of them, and objects too small to be learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from detseg.annotations.duplicates import shared_content
from detseg.annotations.object_size import input_sides, too_small_line
from detseg.annotations.obstacles import no_training_instances
from detseg.annotations.split import Splits, split
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import Finding
from detseg.errors import DataError
from detseg.options.defaults import IMAGE_SIZE_ON_CPU
from detseg.preprocess import Preprocessing, longer_side


def default_splits(table: AnnotationTable) -> Splits:
    """The splits that ``train`` makes without options; none if the table cannot be split."""
    try:
        return split(table)
    except DataError:
        return {}


def inspect_split(table: AnnotationTable, image_size: int | None = None) -> list[Finding]:
    """Find why ``train`` cannot split the table, or learn from its split, and training objects that are too small.

    Args:
        image_size: the shorter side of the input in pixels; None for the default of a CPU.
    """
    try:
        train = split(table)["train"]
    except DataError as error:
        return [Finding.of_text("error", "no split", table.source, str(error))]
    message = no_training_instances(train, table)
    if message:
        return [Finding.of_text("error", "nothing to learn", table.source, message)]
    size = image_size or int(IMAGE_SIZE_ON_CPU.value)
    whose = "" if image_size else "the default on a CPU"
    line = too_small_line(input_sides(train, Preprocessing(size, longer_side(size))), size, whose)
    value, _, remedy = line.rpartition(": ")
    return [Finding("warning", "small objects", table.source, value, remedy)] if line else []


def images_in_two_splits(table: AnnotationTable, digests: Mapping[Path, bytes]) -> list[Finding]:
    """Find files with equal content in two splits of the source, or of those that ``train`` makes by default.

    Args:
        digests: of ``image_facts.digests``; a file without one is read here.
    """
    return [
        Finding(
            "warning",
            "same image in two splits",
            first,
            f"{first} = {second}: an image used for training is also evaluated, so scores are too high",
            remedy,
        )
        for first, second, remedy in _shared(table, digests)
    ]


def _shared(table: AnnotationTable, digests: Mapping[Path, bytes]) -> Iterator[tuple[str, str, str]]:
    """(first image, second image, remedy) for each image that is in two splits."""
    names = sorted(set(table.split.tolist()))
    of_source = shared_content({name: table.subset(np.flatnonzero(table.split == name)) for name in names}, digests)
    yield from ((first, second, "remove one") for first, second in of_source)
    if len(table) == 1 or (of_source and len(names) > 1):
        return  # the note of the split says that there is only one image
    for first, second in shared_content(default_splits(table), digests):
        yield first, second, "remove one, or keep both in one split (train --group)"
