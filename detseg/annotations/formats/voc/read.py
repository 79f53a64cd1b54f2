"""Read Pascal VOC XML, one file per image in any of the usual folders, into a table."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from detseg.annotations.builder import TableBuilder
from detseg.annotations.coordinate_frame import Frame, is_stored_frame
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.file_pairs import image_folder, pair_files, pair_key
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.voc.lists import IMAGE_SET, read_image_sets, read_labelmap
from detseg.annotations.formats.voc.xml import VocFile, parse_voc
from detseg.annotations.image_files import annotated_images, first_few, read_headers
from detseg.annotations.image_lookup import readable_lookup
from detseg.annotations.listing import list_files, split_of
from detseg.annotations.plausibility import check_corner_order
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.images import ImageHeader
from detseg.media.files import is_dir, open_file
from detseg.orientation import upright_hw

_HEAD = 2**16  # bytes read to decide whether an XML file is Pascal VOC
_FILES_CHECKED = 5  # the first file may contain no object
_UNUSED = ("background", "ignored")  # classes of a labelmap.txt that normally have no boxes


def find_voc(root: Path, files: list[str]) -> Detected | None:
    """One line to print about the annotations of the folder; None if it contains no Pascal VOC annotations.

    Args:
        root: the data folder.
        files: all files in it (``list_files``).
    """
    annotation_files = _annotation_files(files)
    if not any(_is_voc(root / file) for file in annotation_files[:_FILES_CHECKED]):
        return None
    folders = sorted({file.rpartition("/")[0] or "." for file in annotation_files})
    has_lists = any(re.search(r"(^|/)imagesets/main/", file, re.IGNORECASE) for file in files)
    lists = ", ImageSets/Main" if has_lists else ""
    return Detected(f"Pascal VOC: {len(annotation_files)} files in {first_few(folders)}{lists}")


def read_voc(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
    one_based: bool = False,
) -> AnnotationTable:
    """Read the XML files of a folder and the headers of their images.

    An image is matched by the name of its XML file, else by ``<filename>``, never by ``<path>``. The annotated size is
    compared with the stored and the upright size (EXIF) as for COCO. Class names are sorted, or in the order of
    ``labelmap.txt``; category ids are 1..K. ``difficult`` fills the column of that name. Images without an XML file are
    left out with a note, because VOC does not define them as negative.

    The split column comes from the lists in ``ImageSets/Main``, else from folders called train, val or test.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`, and:

    Args:
        data: the data folder, with Annotations/ or with XML files anywhere below it.
        one_based: corners are the original VOC pixel indices, from 1 and inclusive: x = xmin - 1, y = ymin - 1,
            width = xmax - xmin + 1, height = ymax - ymin + 1. Nearly all tools write half-open corners from 0
            (x = xmin, width = xmax - xmin), so this must be requested.
    """
    root = Path(data)
    if not is_dir(root):
        raise FileNotFoundError(f"{root}: no such folder; pass a folder of Pascal VOC XML files")
    if root.name.lower() in ("annotations", "annotation") and is_dir(root.resolve().parent / "JPEGImages"):
        root = root.resolve().parent
    source = root.name or root.resolve().name
    files = list_files(root, follow_links, _is_read)
    annotation_files = _annotation_files(files)
    if not annotation_files:
        raise DataError(f"{root}: no XML file in it; pass the folder that contains Annotations/")
    annotations, problems = [], Problems()
    for file in annotation_files:
        with problems.collect():
            annotations.append(parse_voc(root, file, one_based=one_based))
    problems.raise_all(source)
    notes = RepairLog()
    class_map, all_names = _class_map(annotations, read_labelmap(root, files), classes, source, notes)
    lookup = readable_lookup(image_folder(annotation_files, root, images, follow_links), missing_images, notes)
    filenames = [annotation.filename for annotation in annotations]
    media = pair_files(annotation_files, lookup, images, source, notes, filenames, missing_images)
    present = [index for index, name in enumerate(media) if name]
    media, annotations = [media[index] for index in present], [annotations[index] for index in present]
    annotation_files = [annotation_files[index] for index in present]
    headers = read_headers(lookup.root, media, source)
    stored_frames = _stored_frames(annotations, media, headers, images, source, notes)
    _check_corners(annotations, headers, stored_frames, source)
    splits = [split] * len(annotation_files) if split else _splits(root, files, annotation_files, media, notes)
    _note_leftovers(files, set(lookup.files) - set(media), media, notes)

    builder = TableBuilder(class_map, lookup.root, source=source, bad_instances=bad_instances)
    builder.notes.merge(notes)
    for annotation, name, header, stored_frame, image_split in zip(
        annotations, media, headers, stored_frames, splits, strict=True
    ):
        builder.add_image(
            name, header.size_hw, orientation=header.orientation, stored_frame=stored_frame, split=image_split
        )
        frame = Frame(header.size_hw, header.orientation if stored_frame else 1)
        _note_ignored_elements(annotation, builder.notes)
        for instance in annotation.objects:
            if instance.name not in class_map.names:
                assert instance.name in all_names
                builder.notes.add("instance of an unselected class left out", instance.where)
                continue
            box, _, _ = frame.to_upright(np.array(instance.box_xywh), None, None)
            assert box is not None
            builder.add_instance(
                box.tolist(), class_map.label_of(instance.name), difficult=instance.difficult, where=instance.where
            )
    return builder.build()


def _is_read(file: str) -> bool:
    """Whether a file is an annotation file, a list of images or the list of classes, by its name."""
    return file.lower().endswith((".xml", "labelmap.txt")) or IMAGE_SET.search(file) is not None


def _annotation_files(files: Sequence[str]) -> list[str]:
    """The XML files below folders called Annotations if there are any, else all XML files."""
    xml_files = [file for file in files if file.lower().endswith(".xml")]
    inside = [file for file in xml_files if "annotations" in file.lower().split("/")[:-1]]
    return inside or xml_files


def _is_voc(path: Path) -> bool:
    with open_file(path) as file:
        head = file.read(_HEAD)
    if not re.search(rb"<annotation[\s>]", head):
        return False
    if b"<bndbox" in head:
        return True
    is_labelme = b"<polygon" in head or b"<imagesize" in head  # LabelMe's XML has the same root element
    return not is_labelme and (b"<size" in head or b"<segmented" in head)


def _class_map(
    annotations: Sequence[VocFile],
    labelmap: Sequence[str],
    classes: Sequence[str] | None,
    source: str,
    notes: RepairLog,
) -> tuple[ClassMap, tuple[str, ...]]:
    """The map of the selected classes, and the names of all classes."""
    used = {instance.name for annotation in annotations for instance in annotation.objects}
    names = [name for name in labelmap if name in used or name not in _UNUSED]
    unlisted = sorted(used - set(names))
    for name in unlisted if names else ():
        notes.add("class added that labelmap.txt does not list", f"{source}: {name}")
    all_classes = ClassMap.from_names((*names, *unlisted))
    return all_classes.select(classes, source), all_classes.names


def _stored_frames(
    annotations: Sequence[VocFile],
    media: Sequence[str],
    headers: Sequence[ImageHeader],
    images: str | os.PathLike[str] | None,
    source: str,
    notes: RepairLog,
) -> list[bool]:
    """For each image, whether its boxes are in stored pixels; DataError if annotated sizes do not match the files."""
    stored_frames, mismatches = [], []
    for annotation, name, header in zip(annotations, media, headers, strict=True):
        if annotation.size_hw is None:
            notes.add("<size> missing or 0, taken from the image", annotation.file)
            if header.orientation != 1:
                notes.add("image rotated by EXIF: coordinates are assumed to refer to the upright image", name)
            stored_frames.append(False)
            continue
        stored_frame = is_stored_frame(annotation.size_hw, header)
        if stored_frame is None:
            (height, width), (file_height, file_width) = annotation.size_hw, header.size_hw
            mismatches.append(f"{name} (annotated {width} x {height}, file {file_width} x {file_height})")
        stored_frames.append(bool(stored_frame))
    if mismatches:
        raise DataError(
            f"{source}: the size (width x height) of {len(mismatches)} of {len(media)} images differs from the "
            f"annotated size: {first_few(mismatches)}; {annotated_images(images)}, or scale the "
            "annotations and correct <size>"
        )
    return stored_frames


def _check_corners(
    annotations: Sequence[VocFile], headers: Sequence[ImageHeader], stored_frames: Sequence[bool], source: str
) -> None:
    """See ``check_corner_order``."""
    sizes, objects = [], []
    for annotation, header, stored in zip(annotations, headers, stored_frames, strict=True):
        size_hw = header.size_hw if stored else upright_hw(header.size_hw, header.orientation)
        sizes += [size_hw] * len(annotation.objects)
        objects += annotation.objects
    check_corner_order(
        np.array([item.box_xywh for item in objects], np.float64).reshape(-1, 4),
        np.array(sizes, np.int64).reshape(-1, 2),
        [item.where for item in objects],
        source,
        "write xmax = xmin + width and ymax = ymin + height if they are, else write the smaller corner first",
    )


def _splits(
    root: Path, files: list[str], annotation_files: Sequence[str], media: Sequence[str], notes: RepairLog
) -> list[str]:
    """The split of each image: from ImageSets/Main if there are lists, else from folder names."""
    keys = [pair_key(file) for file in annotation_files]
    split_by_key = read_image_sets(root, files, frozenset(keys), notes)
    if split_by_key is None:
        return [
            _folder_split(file) or _folder_split(image) for file, image in zip(annotation_files, media, strict=True)
        ]
    for key, name in zip(keys, media, strict=True):
        if key not in split_by_key:
            notes.add("image in no list of ImageSets/Main, split left empty", name)
    return [split_by_key.get(key, "") for key in keys]


def _folder_split(file: str) -> str:
    """The split of the innermost folder whose name is a split; "" if there is none."""
    return next((split for folder in reversed(PurePosixPath(file).parts[:-1]) if (split := split_of(folder))), "")


def _note_leftovers(files: Sequence[str], unused: set[str], media: Sequence[str], notes: RepairLog) -> None:
    folders = {name.rpartition("/")[0] for name in media}
    for name in sorted(unused):
        if name.rpartition("/")[0] in folders:
            notes.add("image without an XML file left out", name)
    for folder in ("SegmentationObject", "SegmentationClass"):
        masks = [file for file in files if folder.lower() in file.lower().split("/")[:-1]]
        if masks:
            notes.add(f"masks in {folder} not read (use --format masks)", masks[0].rpartition("/")[0])


def _note_ignored_elements(annotation: VocFile, notes: RepairLog) -> None:
    if annotation.parts:
        notes.add("objects with parts (<part>): parts are ignored", annotation.file)
    if annotation.polygons:
        notes.add("objects with a polygon (<polygon>): only the box is read", annotation.file)
