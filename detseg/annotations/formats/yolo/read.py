"""YOLO label files to a table: one text file an image, classes and parts from data.yaml."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.shared.file_pairs import list_images, pair_files, pair_key
from detseg.annotations.formats.yolo.config import (
    NAME_FILES,
    YoloConfig,
    config_schema,
    find_config,
    read_darknet,
    read_names,
    read_yaml,
)
from detseg.annotations.formats.yolo.lines import (
    YoloObject,
    is_yolo_head,
    looks_like_labels,
    pixel_box,
    pixel_points,
    read_lines,
)
from detseg.annotations.formats.yolo.splits import PathIndex, folder_parts, list_files_of_parts, named_parts
from detseg.annotations.image_files import first_few, read_headers
from detseg.annotations.listing import is_image, list_files
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.masks import check_polygons
from detseg.orientation import upright_hw

_LOOKED_AT = 5  # label files; the first may be empty


def find_yolo(root: Path, files: list[str]) -> str | None:
    """One line for humans that says what was found; None if the folder holds no YOLO labels.

    Args:
        root: the data folder.
        files: all files in it (``list_files``).
    """
    texts = [file for file in files if file.lower().endswith(".txt")]
    if not texts:
        return None
    try:
        config = find_config(root, files)
    except DataError:
        config = None  # of other tools, or corrupt: then its reader says so
    if config is not None and (config.names or config.names_file):
        return f"YOLO: {config.file} and {len(texts)} text files"
    images = [file for file in files if is_image(file)] or list_images(texts, root, None, root.name)[1]
    keys = {pair_key(file) for file in images}
    labels = [file for file in texts if pair_key(file) in keys]
    heads = [file for file in labels[:1000] if (root / file).stat().st_size][:_LOOKED_AT]
    if not heads or not all(is_yolo_head(root / file) for file in heads):
        return None
    folders = sorted({file.rpartition("/")[0] or "." for file in labels})
    return f"YOLO: {len(labels)} label files in {first_few(folders)}"


def read_yolo(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
) -> AnnotationTable:
    """Read YOLO boxes, polygons and poses, and the headers of the images.

    Lines are ``class cx cy w h``, ``class x1 y1 x2 y2 ...`` (a polygon), or, with ``kpt_shape`` in data.yaml, a box
    and keypoints; numbers are shares of the upright image's width and height. An image without a label file, or
    with an empty one, is negative (noted); a part of which no image has a label file is left out (noted).

    Classes are those of data.yaml, else of obj.names or classes.txt, else "class 0", "class 1", ... (noted);
    category ids are YOLO's numbers. The split column is that of data.yaml or of train.txt, val.txt, test.txt, else of
    folders of such names.

    Args:
        data: the folder, or its data.yaml.
        images: folder of the images; None to look in ``data``, then beside it.
        classes: names that become labels 1, 2, ... in this order; instances of other classes are left out with a
            note, their images stay.
        bad_instances: "drop" or "error", see :class:`TableBuilder`.
        split: what the split column says of all images instead.

    Raises:
        DataError: what cannot be used, with the file, the line and the value.
        OSError: no such folder.
    """
    data = Path(data)
    root = data.parent if data.is_file() else data
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; YOLO is a folder of label files and images")
    source = root.name or root.resolve().name
    files = list_files(root)
    config = _config(data, root, files)
    notes = RepairLog()
    texts = [file for file in files if file.lower().endswith((".txt", ".names", ".labels"))]
    names_file = "" if config and config.names else _names_file(config, PathIndex((), texts))
    labels = [file for file in texts if file.lower().endswith(".txt") and file != names_file]
    places_root, image_files = list_images(labels, root, images, source)
    labels = _label_files(root, labels, image_files)
    if not labels:
        raise DataError(
            f"{root}: no YOLO label file (.txt) that belongs to an image or looks like one; give the folder that "
            "holds labels/ and images/"
        )
    label_of = dict(zip(pair_files(labels, image_files, source, notes), labels, strict=True))
    named = _named_parts(PathIndex(image_files, texts), config, root, texts, images is not None, notes)
    parts = folder_parts(image_files, label_of) if named is None else named
    media = _used(image_files, parts, label_of, notes)

    kpt_shape = config.kpt_shape if config else None
    schema = config_schema(config, notes)
    found = [read_lines(root / label_of[name], label_of[name], kpt_shape) if name in label_of else [] for name in media]
    names = config.names if config and config.names else read_names(root, names_file) if names_file else None
    class_map, name_of = _class_map(found, names, names_file or (config.file if config else ""), classes, source, notes)
    headers = read_headers(places_root, media, source)
    builder = TableBuilder(class_map, places_root, source=source, bad_instances=bad_instances, keypoint_schema=schema)
    builder.notes.merge(notes)
    for name, header, objects in zip(media, headers, found, strict=True):
        if header.orientation != 1:
            builder.notes.add("image that EXIF turns: coordinates are taken as those of the upright image", name)
        if not objects:
            builder.notes.add("image without objects (label file missing or empty): negative", name)
        builder.add_image(name, header.size_hw, orientation=header.orientation, split=split or parts.get(name, ""))
        size_hw = upright_hw(header.size_hw, header.orientation)
        for instance in objects:
            class_name = name_of[instance.class_number]
            if class_name in class_map.names:
                _add(builder, instance, class_map.label_of(class_name), size_hw)
            else:
                builder.notes.add("instance of a class that was not selected left out", instance.where)
    return builder.build()


def _add(builder: TableBuilder, instance: YoloObject, label: int, size_hw: tuple[int, int]) -> None:
    keypoints = instance.keypoints
    if keypoints is not None:
        keypoints = np.column_stack([pixel_points(keypoints[:, :2], size_hw), keypoints[:, 2]])
    if instance.box is not None:
        builder.add_instance(pixel_box(instance.box, size_hw), label, keypoints=keypoints, where=instance.where)
        return
    assert instance.ring is not None
    rings = check_polygons([pixel_points(instance.ring, size_hw)], size_hw, instance.where)
    builder.add_instance(None, label, segmentation=rings, where=instance.where)


def _config(data: Path, root: Path, files: Sequence[str]) -> YoloConfig | None:
    if not data.is_file():
        return find_config(root, files)
    if data.suffix.lower() in (".yaml", ".yml"):
        return read_yaml(root, data.name)
    if data.suffix.lower() == ".data":
        return read_darknet(root, data.name)
    raise DataError(f"{data}: not a data.yaml; give this, or the folder of the data set")


def _named_parts(
    places: PathIndex, config: YoloConfig | None, root: Path, texts: Sequence[str], elsewhere: bool, notes: RepairLog
) -> dict[str, str] | None:
    """Split of each image that the config or a list names; None if neither says anything."""
    parts, file = list_files_of_parts(root, texts), "train.txt, val.txt, test.txt"
    if config is not None and config.parts:
        parts, file = config.parts, config.file
    entries = [entry for part in parts.values() for entry in part]
    if elsewhere and all(places.find(entry)[0] is None for entry in entries):
        return None  # the images are in a folder of the user's choice, which has its own order
    return named_parts(places, parts, file, root, notes)


def _names_file(config: YoloConfig | None, places: PathIndex) -> str:
    if config is not None and config.names_file:
        found, _ = places.find(config.names_file)
        if found:
            return found
    for name in NAME_FILES:
        for folder in ("", "labels", "annotations", "Annotations"):
            found, elsewhere = places.find(f"{folder}/{name}" if folder else name)
            if found and not elsewhere:
                return found
    return ""


def _label_files(root: Path, texts: Sequence[str], images: Sequence[str]) -> list[str]:
    """Text files that belong to an image by name, or that look like labels of one that is not there."""
    keys = {pair_key(file) for file in images}
    return [file for file in texts if pair_key(file) in keys or looks_like_labels(root / file)]


def _used(images: Sequence[str], parts: dict[str, str], label_of: dict[str, str], notes: RepairLog) -> list[str]:
    """The images of the table: those with labels, and negative ones in parts that are labelled."""
    labelled = {parts[name] for name in label_of if name in parts}
    used = []
    for name in images:
        if name in label_of:
            if name not in parts:
                notes.add("labelled image that no part names, split left empty", name)
            used.append(name)
        elif name not in parts:
            notes.add("image without labels that no part names left out", name)
        elif parts[name] not in labelled:
            notes.add("image in a part without any label file left out", name)
        else:
            used.append(name)
    return used


def _class_map(
    found: Sequence[Sequence[YoloObject]],
    names: dict[int, str] | None,
    names_file: str,
    classes: Sequence[str] | None,
    source: str,
    notes: RepairLog,
) -> tuple[ClassMap, dict[int, str]]:
    """The selected classes, and the name of every class number."""
    first: dict[int, str] = {}
    for objects in found:
        for instance in objects:
            first.setdefault(instance.class_number, instance.where)
    if names is None:
        names = {number: f"class {number}" for number in sorted(first)}
        notes.add("no class names (data.yaml, obj.names, classes.txt): classes are numbered", source)
    for number, where in first.items():
        if number not in names:
            known = first_few([f"{known} {name}" for known, name in names.items()])
            raise DataError(f"{where}: class {number} is not in {names_file} ({known}); add its name or correct it")
    everything = ClassMap(tuple(names.values()), tuple(names))
    return everything.select(classes, source), names
