"""Masks in the layout of Pascal VOC and CVAT: SegmentationClass, SegmentationObject, ImageSets/Segmentation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from detseg.annotations.formats.masks.layout import MaskFolders
from detseg.annotations.formats.masks.values import IGNORE, instances_by_value, unique_with_index
from detseg.annotations.formats.shared.text_file import read_text
from detseg.annotations.formats.shared.value_counts import Labels
from detseg.annotations.listing import is_image, split_of
from detseg.errors import DataError
from detseg.structures import RLE

_OBJECTS_OF = {
    "segmentationclass": "segmentationobject",
    "segmentationclasspng": "segmentationobjectpng",
}
_LIST = re.compile(r"(^|/)imagesets/segmentation/[^/]+\.txt$", re.IGNORECASE)
_COMBINED = {"trainval": "train", "default": ""}  # lists that do not define one split


def is_segmentation(pair: MaskFolders) -> bool:
    """Whether the masks are those of a VOC folder, where most images have none."""
    name = pair.masks.rpartition("/")[2].lower()
    return name in _OBJECTS_OF or name in _OBJECTS_OF.values()


def objects_folder(files: Sequence[str], pair: MaskFolders) -> str:
    """The folder with the masks of objects beside that of classes; "" if there is none."""
    parent, _, name = pair.masks.rpartition("/")
    objects_name = _OBJECTS_OF.get(name.lower(), "")
    prefix = f"{parent}/" if parent else ""
    for file in files if objects_name else ():
        folder = file.removeprefix(prefix).partition("/")[0]
        if file.startswith(prefix) and folder.lower() == objects_name:
            return prefix + folder
    return ""


def segmentation_lists(root: Path, files: Sequence[str]) -> dict[str, str]:
    """The split of each name in the lists of ImageSets/Segmentation; ``trainval`` alone means train.

    Raises:
        DataError: a name is in two lists of different splits.
    """
    split_by_name: dict[str, str] = {}
    lists = [(PurePosixPath(file).stem.lower(), file) for file in files if _LIST.search(file)]
    for stem, file in sorted(lists, key=lambda entry: entry[0] in _COMBINED):
        split = _COMBINED.get(stem, split_of(stem))
        for line in read_text(root / file, file).splitlines():
            name = line.strip().strip('"')
            name = name.rpartition(".")[0] if is_image(name) else name
            if name and split_by_name.setdefault(name, split) != split and stem not in _COMBINED:
                raise DataError(
                    f"{file}: {name} is also in the list of {split_by_name[name] or 'another split'}; an image belongs "
                    "to one split: remove it from one of the lists"
                )
    return split_by_name


def objects_with_classes(objects: Labels, classes: Labels, ignored: frozenset[int]) -> list[tuple[int, int, RLE]]:
    """(number, value, RLE) of the objects of an [H, W] image; the value is that of most of the pixels in ``classes``.

    It is 0 for an object of which most pixels have no class, such as the border with the number 255.
    """
    numbers, index = unique_with_index(objects.ravel())
    length = int(classes.max()) + 1
    pixels = np.bincount(index * length + classes.ravel(), minlength=len(numbers) * length)
    values = dict(zip(numbers.tolist(), pixels.reshape(len(numbers), length).argmax(axis=1).tolist(), strict=True))
    objects_found = [(number, values[number], rle) for number, rle in instances_by_value(objects, border=False)]
    kept = [(number, 0 if value in ignored else value, rle) for number, value, rle in objects_found]
    return [item for item in kept if item[1] or item[0] != IGNORE]
