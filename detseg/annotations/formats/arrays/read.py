"""Read images with NumPy arrays beside them: ``x.npy``, ``x.boxes.npy``, ``x.landmarks.npy``, ``x.label.npy``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detseg.annotations.formats.arrays.targets import Targets
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.shared.shapes import ClassList, ShapeAnnotation, shapes_table
from detseg.annotations.formats.shared.text_file import read_text
from detseg.annotations.image_files import first_few
from detseg.annotations.image_lookup import MISSING, ImageReference, check_missing
from detseg.annotations.listing import is_image, key_of, list_files, split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.array_images import is_target
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema, unnamed
from detseg.media.files import is_file

NAMES = "classes.txt"
"""A file with the names of the labels 0, 1, ..., one per line."""

_OF_OBJECTS = ("boxes", "landmarks", "masks")


def find_arrays(root: Path, files: list[str]) -> Detected | None:
    """One line to print, if an image has arrays with the names of annotations beside it, at any depth."""
    images, targets = _grouped(files)
    number = len(images.keys() & targets.keys())
    kinds = sorted({kind for of_image in targets.values() for kind in of_image})
    return Detected(f"arrays: {len(images)} images, {number} with {', '.join(kinds)}") if number else None


def read_arrays(
    data: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read a folder of images with arrays beside them. A missing array is an empty one: the image has no objects.

    ``x.boxes.npy`` is [N, 4] x1, y1, x2, y2 in pixels; ``x.landmarks.npy`` [N, P, 2] or [N, P, 3] x, y and visibility,
    or [P, 2] for a single object (NaN and -1, -1: not labelled); ``x.masks.npy`` [N, H, W], not 0 is the object;
    ``x.label.npy`` (or labels) the N labels, or one for all. Labels are texts, or numbers from 0, with names in
    ``classes.txt``; -1 is none. Without a box, that of the mask or of the landmarks is used; without labels in the data
    set, all objects have the class "object". If no image has boxes, masks or landmarks, the label is the class of the
    image, and an array of several labels has one for each label field. The image is ``x.npy`` or another image file.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`, but that images are always
    beside their arrays. Splits are the top folders, if all of them have names such as train.
    """
    root = Path(data)
    files = list_files(root, follow_links, lambda file: is_image(file) or is_target(file))
    images, targets = _grouped(files)
    notes, problems = RepairLog(), Problems()
    _check_images(root, images, targets, notes, missing_images)
    if not images:
        raise DataError(f"{root}: no images; save arrays uint8 [height, width, 3] as x.npy beside x.boxes.npy")
    names = _class_names(root / NAMES)
    kinds = {kind for of_image in targets.values() for kind in of_image}
    of_image = {key: Targets(root, targets.get(key, {}), names, notes) for key in images}
    points = _landmark_count(list(of_image.values())) if "landmarks" in kinds else 0
    folders = [file.partition("/")[0] if "/" in file else "" for file in images.values()]
    splits = [split_of(folder) for folder in folders]
    annotations = []
    for (key, file), of_folder in zip(images.items(), splits, strict=True):
        annotation = ShapeAnnotation(ImageReference(file), file, split=split or (of_folder if all(splits) else ""))
        with problems.collect():
            if kinds & {*_OF_OBJECTS}:
                of_image[key].add_objects(annotation, points, bool(kinds & {"label", "labels"}))
            else:
                of_image[key].class_labels(annotation)
        annotations.append(annotation)
    problems.raise_all(str(root))
    return shapes_table(
        annotations, root, None, source=str(root), notes=notes,
        class_list=ClassList(tuple(dict.fromkeys(names))) if names and kinds & {"label", "labels"} else None,
        classes=classes, bad_instances=bad_instances,
        schema=keypoint_schema(unnamed(points)) if points else None, follow_links=follow_links,
    )  # fmt: skip


def _grouped(files: Sequence[str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Path without suffix -> image; and -> kind of array -> file.

    Raises:
        DataError: two images differ only in their suffix, and there are arrays beside them.
    """
    targets: dict[str, dict[str, str]] = {}
    for file in files:
        if is_target(file):
            key, _, kind = key_of(file).rpartition(".")
            targets.setdefault(key, {})[kind.lower()] = file
    images: dict[str, str] = {}
    for file in filter(is_image, files):
        first = images.setdefault(key_of(file), file)
        if first != file and key_of(file) in targets:
            raise DataError(f"{first} and {file} have the same arrays beside them; rename or remove one of the images")
    return images, targets


def _check_images(
    root: Path,
    images: dict[str, str],
    targets: dict[str, dict[str, str]],
    notes: RepairLog,
    missing_images: str,
) -> None:
    """DataError if arrays have no image, unless they may be left out."""
    missing = [next(iter(targets[key].values())) for key in targets if key not in images]
    if missing:
        text = (
            f"{root}: {len(missing)} of {len(targets)} arrays have no image beside them: {first_few(missing)}; "
            "add the images, or remove the arrays"
        )
        check_missing(len(missing), len(targets), text, None, missing_images)
        for file in missing:
            notes.add(MISSING, file)


def _class_names(path: Path) -> list[str]:
    if not is_file(path):
        return []
    lines = [line.strip() for line in read_text(path, path.name, max_bytes=2**20).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines or len(set(lines)) < len(lines):
        raise DataError(
            f"{path}: an empty or repeated line; write the name of each label 0, 1, ... on a line of its own"
        )
    return lines


def _landmark_count(images: Sequence[Targets]) -> int:
    """The number of landmarks that all objects have."""
    first: dict[int, str] = {}
    for image in images:
        number = image.landmark_count()
        if number:
            first.setdefault(number, image.files["landmarks"])
    if len(first) > 1:
        described = ", ".join(f"{number} in {file}" for number, file in first.items())
        raise DataError(
            f"different numbers of landmarks: {described}; save the same number for each object, NaN for none"
        )
    return next(iter(first), 0)
