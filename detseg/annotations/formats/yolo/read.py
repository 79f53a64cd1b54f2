"""Read YOLO label files, one text file per image with classes and splits from data.yaml, into a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.file_pairs import image_folder, pair_files, pair_key
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
    LineError,
    YoloObject,
    check_sixth,
    pixel_box,
    pixel_points,
    raise_problems,
    read_lines,
    starts_with_numbers,
    starts_with_pixels,
    starts_with_yolo_label,
)
from detseg.annotations.formats.yolo.splits import PathIndex, read_configured_splits, split_lists, splits_from_folders
from detseg.annotations.image_files import first_few, read_headers
from detseg.annotations.image_lookup import readable_lookup
from detseg.annotations.listing import is_image, list_files
from detseg.annotations.plausibility import CORNERS, ImplausibleBoxes, check_centres
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.images import IMAGE_SUFFIXES, ImageHeader
from detseg.masks import check_polygons
from detseg.media.files import file_size, is_dir, is_file
from detseg.orientation import upright_hw

_TEXTS = (".txt", ".names", ".labels")
_CONFIGS = (".yaml", ".yml", ".data")
_FILES_CHECKED = 5  # the first label file may be empty


def find_yolo(root: Path, files: list[str]) -> Detected | None:
    """One line to print about the labels of the folder; None if it contains no YOLO labels.

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
        config = None  # of another tool, or corrupt: read_yolo reports the error
    if config is not None and (config.names or config.names_file):
        return Detected(f"YOLO: {config.file} and {len(texts)} text files")
    images = [file for file in files if is_image(file)] or image_folder(texts, root, None).files
    keys = {pair_key(file) for file in images}
    labels = [file for file in texts if pair_key(file) in keys]
    non_empty = [file for file in labels[:1000] if file_size(root / file)][:_FILES_CHECKED]
    is_label = (
        starts_with_yolo_label if non_empty and starts_with_yolo_label(root / non_empty[0]) else starts_with_pixels
    )
    if not non_empty or not all(is_label(root / file) for file in non_empty):
        return None
    folders = sorted({file.rpartition("/")[0] or "." for file in labels})
    return Detected(f"YOLO: {len(labels)} label files in {first_few(folders)}")


def read_yolo(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read YOLO boxes, polygons and poses, and the headers of the images.

    Lines are ``class cx cy w h``, ``class x1 y1 x2 y2 ...`` (a polygon), or, with ``kpt_shape`` in data.yaml, a box
    and keypoints; numbers are fractions of the upright image's width and height. An image without a label file, or
    with an empty one, is negative (noted); a split in which no image has a label file is left out (noted).

    Classes come from data.yaml, else from obj.names or classes.txt, else they are "class 0", "class 1", ... (noted);
    category ids are YOLO's class numbers. The split column comes from data.yaml or from train.txt, val.txt, test.txt,
    else from folder names.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`; ``data`` is the
    folder, or its data.yaml.
    """
    data = Path(data)
    root = data.parent if is_file(data) else data
    if not is_dir(root):
        raise FileNotFoundError(f"{root}: no such folder; pass a folder of YOLO label files and images")
    source = root.name or root.resolve().name
    suffixes = (*_TEXTS, *_CONFIGS, *(IMAGE_SUFFIXES if images is None else ()))
    files = list_files(root, follow_links, lambda file: file.lower().endswith(suffixes))
    config = _config(data, root, files)
    notes = RepairLog()
    texts = [file for file in files if file.lower().endswith(_TEXTS)]
    names_file = "" if config and config.names else _names_file(config, PathIndex((), texts))
    labels = [file for file in texts if file.lower().endswith(".txt") and file != names_file]
    lookup = readable_lookup(image_folder(labels, root, images, follow_links), missing_images, notes)
    image_files = lookup.files
    labels = _label_files(root, labels, image_files)
    if not labels:
        raise DataError(
            f"{root}: no YOLO label file (.txt) that belongs to an image or starts with numbers; pass the folder that "
            "contains labels/ and images/"
        )
    paired = pair_files(labels, lookup, images, source, notes, missing_images=missing_images)
    label_of = {image: label for image, label in zip(paired, labels, strict=True) if image}
    configured = _configured_splits(PathIndex(image_files, texts), config, root, texts, images, notes, missing_images)
    splits = splits_from_folders(image_files, label_of) if configured is None else configured
    media = _used_images(image_files, splits, label_of, notes)

    kpt_shape = config.kpt_shape if config else None
    schema = config_schema(config, notes)
    problems: list[LineError] = []
    objects_of = [
        read_lines(root / label_of[name], label_of[name], kpt_shape, notes, problems) if name in label_of else []
        for name in media
    ]
    raise_problems(problems, source)
    check_sixth([item for objects in objects_of for item in objects], notes)
    names = config.names if config and config.names else read_names(root, names_file) if names_file else None
    names_source = names_file or (config.file if config else "")
    class_map, name_of = _class_map(objects_of, names, names_source, classes, source, notes)
    headers = read_headers(lookup.root, media, source)
    objects_of = _with_centres(objects_of, headers, source, notes, mend=bad_instances == "mend")
    builder = TableBuilder(class_map, lookup.root, source=source, bad_instances=bad_instances, keypoint_schema=schema)
    builder.notes.merge(notes)
    for name, header, objects in zip(media, headers, objects_of, strict=True):
        if header.orientation != 1:
            builder.notes.add("image rotated by EXIF: coordinates are assumed to refer to the upright image", name)
        if not objects:
            builder.notes.add("image without objects (label file missing or empty): used as negative", name)
        builder.add_image(name, header.size_hw, orientation=header.orientation, split=split or splits.get(name, ""))
        size_hw = upright_hw(header.size_hw, header.orientation)
        for instance in objects:
            class_name = name_of[instance.class_number]
            if class_name in class_map.names:
                _add(builder, instance, class_map.label_of(class_name), size_hw)
            else:
                builder.notes.add("instance of an unselected class left out", instance.where)
    return builder.build()


def _with_centres(
    objects_of: list[list[YoloObject]],
    headers: Sequence[ImageHeader],
    source: str,
    notes: RepairLog,
    *,
    mend: bool,
) -> list[list[YoloObject]]:
    """The objects of each image; see ``check_centres``. With ``mend`` boxes that are something else are converted."""
    boxes: list[tuple[float, ...]] = []
    sizes: list[tuple[int, int]] = []
    places: list[str] = []
    for objects, header in zip(objects_of, headers, strict=True):
        height, width = upright_hw(header.size_hw, header.orientation)
        for item in objects:
            if item.box is not None:
                a, b, c, d = item.box
                boxes.append((a * width, b * height, c * width, d * height))
                sizes.append((height, width))
                places.append(f"{a:g} {b:g} {c:g} {d:g} ({item.where})")
    try:
        check_centres(np.array(boxes).reshape(-1, 4), np.array(sizes, np.int64).reshape(-1, 2), places, source)
    except ImplausibleBoxes as error:
        if not mend:
            raise
        notes.add(f"boxes converted from {error.meaning}", f"{source}: all {len(boxes)}")
        return [[_as_centre(item, error.meaning) for item in objects] for objects in objects_of]
    return objects_of


def _as_centre(item: YoloObject, meaning: str) -> YoloObject:
    if item.box is None:
        return item
    a, b, c, d = item.box
    width, height = (c - a, d - b) if meaning == CORNERS else (c, d)
    return replace(item, box=(a + width / 2, b + height / 2, width, height))


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
    if not is_file(data):
        return find_config(root, files)
    if data.suffix.lower() in (".yaml", ".yml"):
        return read_yaml(root, data.name)
    if data.suffix.lower() == ".data":
        return read_darknet(root, data.name)
    raise DataError(f"{data}: not a data.yaml; pass the data.yaml or its folder")


def _configured_splits(
    paths: PathIndex,
    config: YoloConfig | None,
    root: Path,
    texts: Sequence[str],
    images: str | os.PathLike[str] | None,
    notes: RepairLog,
    missing_images: str,
) -> dict[str, str] | None:
    """Split of each image according to the config or the split lists; None if neither defines splits."""
    splits, file = split_lists(root, texts), "train.txt, val.txt, test.txt"
    if config is not None and config.splits:
        splits, file = config.splits, config.file
    entries = [entry for split_entries in splits.values() for entry in split_entries]
    if images is not None and all(paths.find(entry)[0] is None for entry in entries):
        return None  # the user passed another image folder, whose structure differs
    return read_configured_splits(paths, splits, file, root, images, notes, missing_images)


def _names_file(config: YoloConfig | None, paths: PathIndex) -> str:
    """The file of the class names; "" if there is none."""
    if config is not None and config.names_file:
        file, _ = paths.find(config.names_file)
        if file:
            return file
    for name in NAME_FILES:
        for folder in ("", "labels", "annotations", "Annotations"):
            file, relocated = paths.find(f"{folder}/{name}" if folder else name)
            if file and not relocated:
                return file
    return ""


def _label_files(root: Path, texts: Sequence[str], images: Sequence[str]) -> list[str]:
    """Text files that belong to an image by name, or that look like labels of a missing image."""
    keys = {pair_key(file) for file in images}
    return [file for file in texts if pair_key(file) in keys or starts_with_numbers(root / file)]


def _used_images(
    images: Sequence[str], splits: dict[str, str], label_of: dict[str, str], notes: RepairLog
) -> list[str]:
    """The images of the table: those with a label file, and negative images in splits that have label files."""
    labelled_splits = {splits[name] for name in label_of if name in splits}
    used = []
    for name in images:
        if name in label_of:
            if name not in splits:
                notes.add("labelled image in no split, split left empty", name)
            used.append(name)
        elif name not in splits:
            notes.add("image without label file in no split left out", name)
        elif splits[name] not in labelled_splits:
            notes.add("image in a split without label files left out", name)
        else:
            used.append(name)
    return used


def _class_map(
    objects_of: Sequence[Sequence[YoloObject]],
    names: dict[int, str] | None,
    names_source: str,
    classes: Sequence[str] | None,
    source: str,
    notes: RepairLog,
) -> tuple[ClassMap, dict[int, str]]:
    """The map of the selected classes, and the name of every class number."""
    first_use: dict[int, str] = {}
    for objects in objects_of:
        for instance in objects:
            first_use.setdefault(instance.class_number, instance.where)
    if names is None:
        names = {number: f"class {number}" for number in sorted(first_use)}
        first = next(iter(names.values()), "class 0")
        notes.add(
            "no class names (data.yaml, obj.names, classes.txt): classes are numbered",
            f"{source} (--rename '{first}=NAME' names one)",
        )
    for number, where in first_use.items():
        if number not in names:
            defined = first_few([f"{index} {name}" for index, name in names.items()])
            raise DataError(f"{where}: class {number} is not in {names_source} ({defined}); add its name or correct it")
    all_classes = ClassMap(tuple(names.values()), tuple(names))
    return all_classes.select(classes, source), names
