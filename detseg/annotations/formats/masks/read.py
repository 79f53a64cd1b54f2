"""Read mask folders: images, and label images whose pixel values are instances or classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.masks.layout import MaskFolders, files_below, match
from detseg.annotations.formats.masks.values import (
    IGNORE,
    MIN_REGION,
    VALUES,
    Labels,
    guess_values,
    instances_by_value,
    regions_by_class,
)
from detseg.annotations.groups import first_names
from detseg.annotations.image_files import read_headers
from detseg.annotations.listing import is_image, list_files, split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.images import ImageHeader, decode_label_png
from detseg.orientation import orient_image, upright_hw
from detseg.runtime.reporter import progress
from detseg.structures import RLE

THREADS = 4
"""Threads that decode label images; the decoders release the GIL."""

SAMPLED_MASKS = 32
"""Number of masks read to guess the meaning of their values."""

ONE_CLASS = "object"
"""The class of all objects if neither file names nor ``classes`` specify one."""


@dataclass(frozen=True)
class _Image:
    """An image and its masks, as (file, class in the file name); all paths relative to the data folder."""

    file: str
    split: str
    masks: list[tuple[str, str]]
    one_of_many: bool


@dataclass(frozen=True)
class _Object:
    """One object of a mask. With class values, ``value`` is the class; otherwise ``class_name`` is ("" for none)."""

    rle: RLE
    where: str
    value: int = 0
    class_name: str = ""


def read_masks(
    images_dir: str | os.PathLike[str],
    masks_dir: str | os.PathLike[str],
    *,
    values: str | None = None,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    follow_links: bool = False,
) -> AnnotationTable:
    """Read one image folder and one mask folder; see :func:`read_mask_folders`.

    Folders named train, val or test inside both are used as the split of the source.
    """
    images, masks = (Path(os.path.abspath(folder)) for folder in (images_dir, masks_dir))  # noqa: PTH100
    root = Path(os.path.commonpath([images, masks]))
    folders = MaskFolders(*("" if path == root else path.relative_to(root).as_posix() for path in (images, masks)))
    return read_mask_folders(
        root, [folders], values=values, classes=classes, bad_instances=bad_instances, follow_links=follow_links
    )


def read_mask_folders(
    root: str | os.PathLike[str],
    folders: Sequence[MaskFolders],
    *,
    values: str | None = None,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    follow_links: bool = False,
) -> AnnotationTable:
    """Read images and the label images that match them by name.

    Args:
        root: the data folder.
        folders: image and mask folders, below ``root``.
        values: the meaning of pixel values. "instance": each value except 0 is one object, all of one class. "class":
            value v is class v, 0 is background and 255 ignored; each connected region is an object. "binary": one
            object per file, all pixels that are not 0; an image has any number of files. None guesses from up to 32
            masks, with a note.
        classes: for "class", names of the values 1, 2, ...; otherwise the only class, or, if file names contain
            classes (``img_7_square_2.png``), the selected classes, in this order.
        bad_instances: "drop" or "error", see ``TableBuilder``.
        follow_links: follow links that point outside ``root``.

    Raises:
        DataError: images without mask (with "binary" they are negatives), a mask and its image with different sizes, a
            value without a name, files that cannot be read, or links that point outside ``root``.
        OSError: a folder or file cannot be opened.
    """
    root = Path(root)
    notes = RepairLog()
    images = [image for pair in folders for image in _images(root, pair, follow_links, notes)]
    if not any(image.masks for image in images):
        raise DataError(
            f"{root}: no mask matches an image by name; the mask of img_7.jpg is called img_7.png or img_7_mask.png"
        )
    if values is None:
        values, reason = _guess_values(root, images)
        others = " or ".join(other for other in VALUES if other != values)
        notes.add(f"mask values interpreted as {values}", f"{reason}; if that is wrong, pass --mask-values {others}")
    elif values not in VALUES:
        raise DataError(f"unknown mask values {values!r}; choose {', '.join(VALUES)}")
    _check_complete(root, images, values, notes)
    headers = read_headers(root, [image.file for image in images], root.name)
    objects, stored_frame = _read_objects(root, images, headers, values, notes)
    all_objects = [item for objects_of_image in objects for item in objects_of_image]
    if values == "class" and not all_objects:
        _check_ignored(root, images)
    if values == "class":
        class_map = _classes_of_values(root, all_objects, classes)
    else:
        class_map = _classes_of_names(root, {item.class_name for item in all_objects}, classes)
    labels = class_map.labels_by_category_id()
    builder = TableBuilder(class_map, root, source=str(root), bad_instances=bad_instances)
    builder.notes.merge(notes)
    for image, header, stored, objects_of_image in zip(images, headers, stored_frame, objects, strict=True):
        builder.add_image(
            image.file, header.size_hw, orientation=header.orientation, stored_frame=stored, split=image.split
        )
        for item in objects_of_image:
            name = item.class_name or class_map.names[0]
            if values == "class":
                builder.add_instance(None, labels[item.value], segmentation=item.rle, where=item.where)
            elif name in class_map.names:
                builder.add_instance(None, class_map.label_of(name), segmentation=item.rle, where=item.where)
            else:
                builder.notes.add("object of an unselected class left out", item.where)
    return builder.build()


def _images(root: Path, pair: MaskFolders, follow_links: bool, notes: RepairLog) -> list[_Image]:
    """All images of one pair of folders with the masks that match them by name."""
    same = pair.images == pair.masks
    read = [f"{folder}/" if folder else "" for folder in (pair.images, pair.masks)]
    files = list_files(root, follow_links, lambda file: is_image(file) and file.startswith(tuple(read)))
    images = files_below(files, pair.images, "" if same else pair.masks)
    masks = files_below(files, pair.masks, "" if same else pair.images)
    matches = match(images, masks, same_folder=same)
    if matches.same_name:
        raise DataError(
            f"{root / pair.images}: {len(matches.same_name)} images differ from another image only in their suffix: "
            f"{first_names(matches.same_name)}; a mask could belong to either: rename one"
        )
    for mask in matches.respelled:
        notes.add("mask of an image whose name has other upper and lower case or blanks", mask)
    for mask in matches.lossy:
        notes.add("mask that is not PNG, TIFF or BMP left out", PurePosixPath(pair.masks, mask).as_posix())
    for mask in matches.without_image:
        notes.add("mask without image left out", PurePosixPath(pair.masks, mask).as_posix())
    return [
        _Image(
            PurePosixPath(pair.images, image).as_posix(),
            pair.split or (split_of(image.split("/")[0]) if "/" in image else ""),
            [
                (PurePosixPath(pair.masks, mask.file).as_posix(), mask.class_name)
                for mask in matches.masks.get(image, ())
            ],
            any(mask.one_of_many for mask in matches.masks.get(image, [])),
        )
        for image in sorted([*matches.masks, *matches.without_mask])
    ]


def _guess_values(root: Path, images: Sequence[_Image]) -> tuple[str, str]:
    """("instance" | "class" | "binary", reason)."""
    masks = [mask for image in images for mask, _ in image.masks]
    if any(len(image.masks) > 1 or image.one_of_many for image in images):
        return "binary", "one image has several mask files"
    sampled = masks[:: -(-len(masks) // SAMPLED_MASKS)]
    return guess_values([frozenset(np.unique(decode_label_png(root / mask)).tolist()) for mask in sampled])


def _check_complete(root: Path, images: Sequence[_Image], values: str, notes: RepairLog) -> None:
    """DataError unless every image has exactly one mask, or with "binary" any number of masks."""
    without = [image.file for image in images if not image.masks]
    several = [image.file for image in images if len(image.masks) > 1]
    if values == "binary":
        for file in without:
            notes.add("image without mask file used as an image without objects", file)
    elif without:
        raise DataError(
            f"{root}: {len(without)} of {len(images)} images have no mask: {first_names(without)}; "
            "add one (all 0 for an image without objects), or remove the image"
        )
    elif several:
        raise DataError(
            f"{root}: {len(several)} images have more than one mask: {first_names(several)}; mask values {values} "
            "require one mask per image: remove the others, or pass --mask-values binary"
        )


def _check_ignored(root: Path, images: Sequence[_Image]) -> None:
    """DataError if masks without objects contain the ignored value: these are black-and-white masks, not classes."""
    for mask in (mask for image in images for mask, _ in image.masks):
        if (decode_label_png(root / mask) == IGNORE).any():
            raise DataError(
                f"{root}: no mask contains an object, only {IGNORE} ({mask}), which is ignored if values are classes; "
                "write 1 instead, or pass --mask-values binary (each file is one object)"
            )


def _read_objects(
    root: Path, images: Sequence[_Image], headers: Sequence[ImageHeader], values: str, notes: RepairLog
) -> tuple[list[list[_Object]], list[bool]]:
    """The objects of every image, and whether its masks refer to the stored pixels, before the EXIF rotation."""

    def read(image: _Image, header: ImageHeader) -> tuple[list[_Object], bool, RepairLog]:
        objects: list[_Object] = []
        stored, notes = False, RepairLog()
        for mask, class_name in image.masks:
            labels, stored = _upright_labels(root / mask, mask, image.file, header)
            if values == "class":
                regions, specks = regions_by_class(labels)
                objects += [_Object(rle, f"{mask}, value {value}", value=value) for value, rle in regions]
                for value, pixels in specks:
                    notes.add(f"region smaller than {MIN_REGION} pixels left out", f"{mask}, value {value}: {pixels}")
            elif values == "instance":
                objects += [_Object(rle, f"{mask}, value {value}") for value, rle in instances_by_value(labels)]
            else:
                pieces = instances_by_value((labels != 0).astype(np.uint8))
                objects += [_Object(rle, mask, class_name=class_name) for _, rle in pieces]
                if not pieces:
                    notes.add("mask file without any object", mask)
        return objects, stored, notes

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(progress(pool.map(read, images, headers), "masks", total=len(images)))
    for _, _, image_notes in results:
        notes.merge(image_notes)
    return [objects for objects, _, _ in results], [stored for _, stored, _ in results]


def _upright_labels(path: Path, mask: str, image: str, header: ImageHeader) -> tuple[Labels, bool]:
    """The mask of the upright image, and whether it was rotated together with the image."""
    labels = decode_label_png(path, name=mask)
    if labels.min() < 0:
        raise DataError(f"{mask}: the value {labels.min()} is negative; label images contain only values from 0 up")
    if labels.shape == header.size_hw:  # stored orientation, also if the upright size is the same
        return orient_image(labels, header.orientation), header.orientation != 1
    if labels.shape == upright_hw(header.size_hw, header.orientation):
        return labels, False
    height, width = header.size_hw
    raise DataError(
        f"{mask}: the mask is {labels.shape[1]} x {labels.shape[0]} pixels (width x height), its image {image} is "
        f"{width} x {height}; create the mask again in the size of the image"
    )


def _classes_of_values(root: Path, objects: Sequence[_Object], classes: Sequence[str] | None) -> ClassMap:
    if classes is not None:
        for item in objects:
            if item.value > len(classes):
                raise DataError(
                    f"{item.where} has no name: --classes has {len(classes)} names, for the values 1 to "
                    f"{len(classes)}; add names, set other values to 255 (ignored), or pass --mask-values instance"
                )
        return ClassMap.from_names(classes)
    values = tuple(sorted({item.value for item in objects}))
    if not values:
        raise DataError(f"{root}: no mask contains an object, so there is no class; pass the classes with --classes")
    return ClassMap(tuple(f"class {value}" for value in values), values)


def _classes_of_names(root: Path, class_names: set[str], classes: Sequence[str] | None) -> ClassMap:
    names = sorted(class_names - {""})
    if not names:
        if classes is not None and len(classes) > 1:
            raise DataError(
                f"{root}: the masks do not distinguish classes, but --classes lists {', '.join(classes)}; pass one "
                "name, or pass --mask-values class if the values are classes"
            )
        return ClassMap.from_names(classes or [ONE_CLASS])
    if "" in class_names:
        raise DataError(
            f"{root}: some masks have a class in their file name ({first_names(names)}), others have none; "
            "name all of them like img_7_square_2.png"
        )
    unknown = [name for name in classes or () if name not in names]
    if unknown:
        raise DataError(f"{root}: no mask has the class {', '.join(unknown)}; file names contain {', '.join(names)}")
    return ClassMap.from_names(classes or names)
