"""Decode every image once, and report those that cannot be used, or that show nothing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detseg.annotations.image_files import first_few
from detseg.annotations.table import AnnotationTable, Record
from detseg.doctor.findings import Finding
from detseg.doctor.splits import images_in_two_splits
from detseg.errors import DataError
from detseg.images import EncodedImage
from detseg.pixel_values import Range, checked_range
from detseg.runtime.reporter import progress
from detseg.value_range import ValueRange, find_value_range

BLACK = 8
"""Value of 255 up to which a pixel counts as black."""
BLACK_SHARE = 0.999
"""Share of black pixels from which an image is nearly black; the others may be noise or dead pixels."""

CONSTANT, NEARLY_BLACK, OUTSIDE = "constant image", "nearly black image", "outside the value range"
_KINDS = {
    OUTSIDE: "have most of their values outside the value range, so they become black or white; correct --value-range",
    CONSTANT: "have the same value in all pixels; restore them, or remove them with their annotations",
    NEARLY_BLACK: "are nearly black (99.9 % of the pixels at most 8 of 255); restore them, or check --value-range if "
    "they have more than 8 bits",
}

THREADS = 4
"""Decoders release the GIL; each thread holds one full image in memory."""


@dataclass(frozen=True)
class _Checked:
    """Result of one file: what is wrong with it, and the first of the ``_KINDS`` that its pixels are; "" for none."""

    finding: Finding | None
    kind: str = ""


def image_values(table: AnnotationTable, override: Sequence[float] | None = None) -> ValueRange | None:
    """The value range of the images with more than 8 bits per channel: of the training split if the source has one, as
    in training, else of all images; or the ``override`` range. None without such images.

    Raises:
        DataError: ``override`` is not a range, or no image has more than 8 bits.
    """
    value_range = checked_range(override, "--value-range")
    train = table.subset(np.flatnonzero(table.split == "train"))
    values = find_value_range(train.files(), images="training images", override=value_range) if len(train) else None
    values = values or find_value_range(table.files(), override=value_range)
    if values is None and value_range is not None:
        raise DataError(
            f"--value-range {override}: it has no effect, no image has more than 8 bits per channel; omit it"
        )
    return values


def inspect_images(table: AnnotationTable, value_range: Range | None = None) -> list[Finding]:
    """Decode all images in full, with a progress bar on a terminal.

    Returns corrupt images and images whose size differs from the table, in the order of the table; then one finding for
    all images that are constant, nearly black, or mostly outside the value range; then images that are in two splits of
    the source, or of those that ``train`` makes. Never raises for a bad image. Images that are not separate files
    (members of archives, frames of videos, images of a dataset object) are not checked. A file of several records is
    decoded once.

    Args:
        value_range: of :func:`image_values`.
    """
    records = {record.path: record for record in reversed(list(_file_records(table)))}
    ordered = list(reversed(records.values()))
    with ThreadPoolExecutor(THREADS) as pool:
        checked = pool.map(lambda record: _inspect(record, value_range), ordered)
        results = list(progress(checked, "decoding images", total=len(ordered)))
    findings = [result.finding for result in results if result.finding is not None]
    for kind, message in _KINDS.items():
        names = [str(record.path) for record, result in zip(ordered, results, strict=True) if result.kind == kind]
        if names:
            text = f"{len(names)} of {len(ordered)} images {message}: {first_few(names)}"
            findings.append(Finding(kind, ", ".join(names), text))
    return [*findings, *images_in_two_splits(table)]


def _file_records(table: AnnotationTable) -> list[Record]:
    rows = [
        row
        for row in range(len(table))
        if str(table.media[row]) and not str(table.member[row]) and int(table.frame[row]) < 0
    ]
    return [table[row] for row in rows]


def _inspect(record: Record, value_range: Range | None) -> _Checked:
    name = str(record.path)
    try:
        encoded = EncodedImage(record.path)
        pixels = encoded.decode(upright=False, value_range=value_range)
    except FileNotFoundError:
        return _Checked(Finding("missing image", name, f"{name}: no such file; restore it, or remove its annotations"))
    except (DataError, OSError) as error:
        return _Checked(Finding("corrupt image", name, str(error)))
    height, width = pixels.shape[:2]
    kind = _kind(pixels, outside=bool(encoded.note) and value_range is not None)
    if encoded.damage:
        return _Checked(Finding("damaged image", name, encoded.damage), kind)
    if (height, width) == record.stored_hw:
        return _Checked(None, kind)
    annotated = f"{record.stored_hw[1]} x {record.stored_hw[0]}"
    finding = Finding(
        "wrong size",
        name,
        f"{name}: the file is {width} x {height} pixels (width x height), its annotations specify {annotated}; "
        "correct them, or restore the image that was annotated",
    )
    return _Checked(finding, kind)


def _kind(pixels: npt.NDArray[np.uint8], *, outside: bool) -> str:
    if outside:
        return OUTSIDE
    if (pixels == pixels[0, 0]).all():
        return CONSTANT
    brightest = pixels.max(axis=2)
    return NEARLY_BLACK if (brightest <= BLACK).mean() >= BLACK_SHARE else ""
