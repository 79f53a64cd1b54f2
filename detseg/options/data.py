"""Define the options that say which data is read, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from detseg.errors import DataError
from detseg.options.field import check_ranges, option

VALUE_LIMIT = 3.4e38
"""Largest pixel value of a float32 image."""

Format = Literal[
    "coco",
    "voc",
    "arrays",
    "yolo",
    "cvat",
    "labelme",
    "via",
    "labelstudio",
    "createml",
    "supervisely",
    "csv",
    "masks",
    "folders",
]


@dataclass(frozen=True)
class DataConfig:
    """Location and format of the data. ``annotations`` is stored as ``data``."""

    data: str = option(
        "", "folder or annotation file of labelled images", "the demo set that comes with this project", value="PATH"
    )
    format: Format | None = option(
        None,
        f"annotation format: {', '.join(get_args(Format))}",
        "detected from the files",
        value="NAME",
    )
    images: str | None = option(None, "folder of the images", "found by their names", value="FOLDER")
    annotations: str | None = option(None, "annotation file or folder", "DATA", value="PATH")
    val_annotations: str | None = option(
        None, "annotations of the validation split; DATA is then the training split", "DATA is split", value="PATH"
    )
    one_based: bool = option(False, "Pascal VOC pixels are counted from 1", "most tools count from 0")
    mask_values: Literal["instance", "class", "binary", "regions"] | None = option(
        None,
        "values of masks: instance (1, 2, ... number the objects), class (1, 2, ... number the classes; 255: ignored), "
        "binary (one object per file) or regions (each separate region is an object)",
        "inferred and printed",
    )
    classes: str | list[str] | None = option(
        None,
        'class names, such as nut,"bolt, M6": select and order the classes, or name the values of masks',
        "all",
        common=True,
    )
    rename: str | list[str] | dict[str, str] | None = option(
        None,
        "new class names, such as object=bolt,M6=bolt; equal ones are merged",
        "the names in the data",
        value="OLD=NEW",
        repeated=True,
    )
    class_attribute: str | None = option(
        None,
        "attribute (VIA, CVAT) or column (CSV) that contains the class",
        "one with a usual name, such as class; in CVAT the label",
        value="NAME",
    )
    bad_instances: Literal["drop", "error", "mend"] = option(
        "drop",
        "objects without a usable box or outline: drop, error, or mend (as drop, but boxes that are all corners, "
        "centres or shares of the image are converted)",
        "counted and listed",
    )
    without_mask: Literal["box", "drop", "keep"] | None = option(
        None,
        "objects without a mask among others with one: box (used as mask), drop or keep",
        "box if at least half have one",
    )
    missing_images: Literal["error", "drop"] = option(
        "error",
        "images without a file, or with one that is no image: stop, or leave out up to half",
        "the folder may be wrong",
    )
    follow_links: bool = option(False, "follow links in the data folder that point outside it")

    def __post_init__(self) -> None:
        if self.annotations and self.data and self.annotations != self.data:
            raise DataError(f"data {self.data} and --annotations {self.annotations}: give only one of them")
        if self.val_annotations and not (self.annotations or self.data):
            raise DataError("--val-annotations without --annotations; give the annotations of the training split too")
        object.__setattr__(self, "data", self.data or self.annotations or "")
        object.__setattr__(self, "annotations", None)
        if isinstance(self.rename, dict):
            import json  # help does not need it

            # as text it is the same in files and on command lines
            object.__setattr__(self, "rename", json.dumps(self.rename, ensure_ascii=False))
        check_ranges(self)
