"""Extract the objects of the masks of each image."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.masks.decode import MaskDecoder
from detseg.annotations.formats.masks.meaning import THREADS, Meaning
from detseg.annotations.formats.masks.segmentation import objects_with_classes
from detseg.annotations.formats.masks.values import MIN_REGION, instances_by_value, regions_by_class
from detseg.annotations.formats.shared.foreground import foreground
from detseg.annotations.formats.shared.value_counts import (
    Labels,
    clear_values,
    count_values,
    has_rims,
    nearest_clear,
    threshold_of,
)
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.images import ImageHeader
from detseg.runtime.reporter import progress
from detseg.structures import RLE


@dataclass(frozen=True)
class MaskedImage:
    """An image and its masks, as (file, class in the file name); all paths relative to the data folder.

    Attributes:
        objects: the mask of objects in SegmentationObject, beside one mask of classes; "" for none.
    """

    file: str
    split: str
    masks: list[tuple[str, str]]
    one_of_many: bool
    objects: str = ""


@dataclass(frozen=True)
class MaskObject:
    """One object of a mask; ``key`` is its value if values are classes, else the class in the file name, or ""."""

    rle: RLE
    where: str
    key: int | str = ""


@dataclass(frozen=True)
class ObjectsOfImage:
    """The objects of one image.

    Attributes:
        objects: those that can be used.
        stored_frame: the masks refer to the stored pixels, before the EXIF rotation.
        lost: key of each object that cannot be used, noted. Specks beside objects are noise; without any object, they
            are the objects.
    """

    objects: list[MaskObject]
    stored_frame: bool
    lost: list[int | str]


def read_objects(
    decoder: MaskDecoder,
    images: Sequence[MaskedImage],
    headers: Sequence[ImageHeader],
    meaning: Meaning,
    notes: RepairLog,
) -> list[ObjectsOfImage]:
    """The objects of every image."""

    def read(image: MaskedImage, header: ImageHeader) -> tuple[ObjectsOfImage, RepairLog]:
        objects: list[MaskObject] = []
        lost: list[int | str] = []
        specks: list[int | str] = []
        stored, own_notes = False, RepairLog()
        for mask, class_name in image.masks:
            labels, stored = decoder.upright(decoder.decode(mask), mask, image.file, header)
            if image.objects:
                numbers, _ = decoder.upright(decoder.decode_objects(image.objects), image.objects, image.file, header)
                objects += _numbered(numbers, labels, image.objects, meaning, own_notes, lost)
            elif meaning.values in ("class", "instance"):
                labels = _without_rims(labels, mask, meaning, own_notes)
                objects += _by_value(labels, mask, meaning, own_notes, specks)
            else:
                foreground = _foreground(labels, mask, meaning, own_notes)
                pieces, number = _pieces(foreground, mask, meaning, own_notes)
                objects += [MaskObject(rle, mask, key=class_name) for rle in pieces]
                specks += [class_name] * number
                if not pieces:
                    own_notes.add("mask file without any object", mask)
        return ObjectsOfImage(objects, stored, lost if objects else [*lost, *specks]), own_notes

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(progress(pool.map(read, images, headers), "masks", total=len(images)))
    for _, image_notes in results:
        notes.merge(image_notes)
    return [result for result, _ in results]


def _numbered(
    numbers: Labels, classes: Labels, mask: str, meaning: Meaning, notes: RepairLog, lost: list[int | str]
) -> list[MaskObject]:
    """The objects of SegmentationObject with the classes of SegmentationClass; those without one are ``lost``."""
    objects = []
    if numbers.shape != classes.shape:
        raise DataError(f"{mask}: the size differs from that of the mask of classes; export both again")
    for number, value, rle in objects_with_classes(numbers, classes, meaning.ignored):
        if value:
            objects.append(MaskObject(rle, f"{mask}, value {number}", key=value))
        else:
            notes.add("object without a class in SegmentationClass left out", f"{mask}, value {number}")
            lost.append("")
    return objects


def _by_value(
    labels: Labels, mask: str, meaning: Meaning, notes: RepairLog, left_out: list[int | str]
) -> list[MaskObject]:
    """The objects of a mask of numbers; the values of specks are added to ``left_out``."""
    if meaning.values == "instance":
        return [
            MaskObject(rle, f"{mask}, value {value}")
            for value, rle in instances_by_value(labels, border=meaning.border)
        ]
    regions, specks = regions_by_class(labels, meaning.ignored)
    _note_specks(specks, mask, notes)
    left_out += [value for value, _ in specks]
    return [MaskObject(rle, f"{mask}, value {value}", key=value) for value, rle in regions]


def _without_rims(labels: Labels, mask: str, meaning: Meaning, notes: RepairLog) -> Labels:
    """The labels with rims between values given to one of them."""
    if meaning.threshold is not None:
        top = labels.max()
        return np.where(_foreground(labels, mask, meaning, notes), top, 0).astype(labels.dtype)
    counts = count_values(labels) if meaning.clear else None
    if counts is not None and has_rims(counts):
        own = clear_values(counts)
        # One file rarely has all classes of the sample; but an object of another image is here at most a rim.
        kept = own if own and meaning.values == "instance" else sorted({*meaning.clear, *own})
        labels, changed = nearest_clear(labels, kept)
        if changed:
            notes.add("rim between two values of a mask given to the nearest value", f"{mask}: {changed} pixels")
    return labels


def _foreground(labels: Labels, mask: str, meaning: Meaning, notes: RepairLog) -> npt.NDArray[np.bool_]:
    """The pixels of objects, [H, W]; a mask that contradicts the sample is noted."""
    counts = None if meaning.stated else count_values(labels)
    if counts is not None and len(clear := clear_values(counts)) > 1 and threshold_of(counts) is None:
        notes.add(f"mask of several clear values read as {meaning.values}", f"{mask}: {clear[:5]}")
    return foreground(labels, mask, notes, meaning.threshold)


def _pieces(foreground: npt.NDArray[np.bool_], mask: str, meaning: Meaning, notes: RepairLog) -> tuple[list[RLE], int]:
    """The objects of a mask of one kind, and the number of specks left out."""
    labels = foreground.astype(np.uint8)
    if meaning.values == "binary":
        return [rle for _, rle in instances_by_value(labels, border=False)], 0
    regions, specks = regions_by_class(labels)
    _note_specks(specks, mask, notes)
    return [rle for _, rle in regions], len(specks)


def _note_specks(specks: Sequence[tuple[int, int]], mask: str, notes: RepairLog) -> None:
    for value, pixels in specks:
        notes.add(f"region smaller than {MIN_REGION} pixels left out", f"{mask}, value {value}: {pixels}")
