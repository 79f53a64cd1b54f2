"""Pascal VOC XML to a table: one XML file an image, in any of the usual folders."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.shared.file_pairs import list_images, pair_files, pair_key
from detseg.annotations.formats.voc.lists import read_image_sets, read_labelmap
from detseg.annotations.formats.voc.xml import VocFile, parse_voc
from detseg.annotations.frame import Frame, is_stored_frame
from detseg.annotations.image_files import first_few, read_headers
from detseg.annotations.listing import list_files, split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.images import ImageHeader

_HEAD = 2**16  # bytes that decide whether an XML file is of VOC
_LOOKED_AT = 5  # files; the first may hold no object
_UNUSED = ("background", "ignored")  # classes of a labelmap.txt that no box has


def find_voc(root: Path, files: list[str]) -> str | None:
    """One line for humans that says what was found; None if the folder holds no Pascal VOC annotations.

    Args:
        root: the data folder.
        files: all files in it (``list_files``).
    """
    found = _annotation_files(files)
    if not any(_is_voc(root / file) for file in found[:_LOOKED_AT]):
        return None
    folders = sorted({file.rpartition("/")[0] or "." for file in found})
    lists = any(re.search(r"(^|/)imagesets/main/", file, re.IGNORECASE) for file in files)
    return f"Pascal VOC: {len(found)} files in {first_few(folders)}" + (", ImageSets/Main" if lists else "")


def read_voc(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
    one_based: bool = False,
) -> AnnotationTable:
    """Read the XML files of a folder and the headers of their images.

    An image is found by the name of its XML file, else by ``<filename>``, never by ``<path>``. The annotated size is
    compared with the stored and the upright one (EXIF) as for COCO. Class names are sorted (a ``labelmap.txt`` gives
    its order), category ids are 1..K. ``difficult`` fills the column of that name. Images without XML file are left
    out with a note: VOC says nothing about them.

    The split column is that of the lists in ``ImageSets/Main``, else of folders called train, val or test.

    Args:
        data: the folder: with Annotations/, or with XML files anywhere below it.
        images: folder of the images; None to look in ``data``, then beside it.
        classes: names that become labels 1, 2, ... in this order; instances of other classes are left out with a
            note, their images stay.
        bad_instances: "drop" or "error", see :class:`TableBuilder`.
        split: what the split column says of all images instead.
        one_based: corners are VOC's own pixel numbers, from 1 and the last one included: x = xmin - 1,
            y = ymin - 1, width = xmax - xmin + 1, height = ymax - ymin + 1. Nearly all tools write half-open corners
            from 0 (x = xmin, width = xmax - xmin), so this has to be said.

    Raises:
        DataError: what cannot be used, with the file, the object and the value.
        OSError: no such folder.
    """
    root = Path(data)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; Pascal VOC is a folder of XML files")
    if root.name.lower() in ("annotations", "annotation") and (root.resolve().parent / "JPEGImages").is_dir():
        root = root.resolve().parent
    source = root.name or root.resolve().name
    files = list_files(root)
    found = _annotation_files(files)
    if not found:
        raise DataError(f"{root}: no XML file in it; give the folder that holds Annotations/")
    annotations = [parse_voc(root, file, one_based=one_based) for file in found]
    notes = RepairLog()
    class_map, known = _class_map(annotations, read_labelmap(root, files), classes, source, notes)
    media_root, image_files = list_images(found, root, images, source)
    media = pair_files(found, image_files, source, notes, [annotation.filename for annotation in annotations])
    headers = read_headers(media_root, media, source)
    stored_frames = _stored_frames(annotations, media, headers, source, notes)
    splits = [split] * len(found) if split else _splits(root, files, found, media, notes)
    _note_leftovers(files, set(image_files) - set(media), media, notes)

    builder = TableBuilder(class_map, media_root, source=source, bad_instances=bad_instances)
    builder.notes.merge(notes)
    for annotation, name, header, stored_frame, part in zip(
        annotations, media, headers, stored_frames, splits, strict=True
    ):
        builder.add_image(name, header.size_hw, orientation=header.orientation, stored_frame=stored_frame, split=part)
        frame = Frame(header.size_hw, header.orientation if stored_frame else 1)
        _note_unread(annotation, builder.notes)
        for instance in annotation.objects:
            if instance.name not in class_map.names:
                assert instance.name in known
                builder.notes.add("instance of a class that was not selected left out", instance.where)
                continue
            box, _, _ = frame.upright(np.array(instance.box_xywh), None, None)
            assert box is not None
            builder.add_instance(
                box.tolist(), class_map.label_of(instance.name), difficult=instance.difficult, where=instance.where
            )
    return builder.build()


def _annotation_files(files: Sequence[str]) -> list[str]:
    """The XML files below folders called Annotations if there are such, else all."""
    found = [file for file in files if file.lower().endswith(".xml")]
    inside = [file for file in found if "annotations" in file.lower().split("/")[:-1]]
    return inside or found


def _is_voc(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not re.search(rb"<annotation[\s>]", head):
        return False
    if b"<bndbox" in head:
        return True
    other = b"<polygon" in head or b"<imagesize" in head  # LabelMe's XML has the same root element
    return not other and (b"<size" in head or b"<segmented" in head)


def _class_map(
    annotations: Sequence[VocFile], listed: Sequence[str], classes: Sequence[str] | None, source: str, notes: RepairLog
) -> tuple[ClassMap, tuple[str, ...]]:
    """The selected classes, and the names of all."""
    used = {instance.name for annotation in annotations for instance in annotation.objects}
    names = [name for name in listed if name in used or name not in _UNUSED]
    others = sorted(used - set(names))
    for name in others if names else ():
        notes.add("class that labelmap.txt does not list added", f"{source}: {name}")
    everything = ClassMap.from_names((*names, *others))
    return everything.select(classes, source), everything.names


def _stored_frames(
    annotations: Sequence[VocFile], media: Sequence[str], headers: Sequence[ImageHeader], source: str, notes: RepairLog
) -> list[bool]:
    """Of each image: whether its boxes are in stored pixels; DataError for sizes that are not the file's."""
    frames, misfits = [], []
    for annotation, name, header in zip(annotations, media, headers, strict=True):
        if annotation.size_hw is None:
            notes.add("<size> missing or 0, taken from the image", annotation.file)
            if header.orientation != 1:
                notes.add("image that EXIF turns: coordinates are taken as those of the upright image", name)
            frames.append(False)
            continue
        stored_frame = is_stored_frame(annotation.size_hw, header)
        if stored_frame is None:
            (height, width), (file_height, file_width) = annotation.size_hw, header.size_hw
            misfits.append(f"{name} (annotated {width} x {height}, file {file_width} x {file_height})")
        frames.append(bool(stored_frame))
    if misfits:
        raise DataError(
            f"{source}: {len(misfits)} of {len(media)} images have another size (width x height) than annotated: "
            f"{first_few(misfits)}; give the images that were annotated (--images), or scale the annotations and "
            "correct <size>"
        )
    return frames


def _splits(root: Path, files: list[str], found: Sequence[str], media: Sequence[str], notes: RepairLog) -> list[str]:
    keys = [pair_key(file) for file in found]
    lists = read_image_sets(root, files, frozenset(keys), notes)
    if lists is None:
        return [_folder_split(file) or _folder_split(image) for file, image in zip(found, media, strict=True)]
    for key, name in zip(keys, media, strict=True):
        if key not in lists:
            notes.add("image in no list of ImageSets/Main, split left empty", name)
    return [lists.get(key, "") for key in keys]


def _folder_split(file: str) -> str:
    """What the innermost folder with such a name says."""
    return next((part for folder in reversed(PurePosixPath(file).parts[:-1]) if (part := split_of(folder))), "")


def _note_leftovers(files: Sequence[str], unused: set[str], media: Sequence[str], notes: RepairLog) -> None:
    folders = {name.rpartition("/")[0] for name in media}
    for name in sorted(unused):
        if name.rpartition("/")[0] in folders:
            notes.add("image without XML file left out", name)
    for folder in ("SegmentationObject", "SegmentationClass"):
        masks = [file for file in files if folder.lower() in file.lower().split("/")[:-1]]
        if masks:
            notes.add(f"masks in {folder} not read (give them with --format masks)", masks[0].rpartition("/")[0])


def _note_unread(annotation: VocFile, notes: RepairLog) -> None:
    if annotation.parts:
        notes.add("objects with parts (<part>): the parts are not read", annotation.file)
    if annotation.polygons:
        notes.add("objects with an outline (<polygon>): only the box is read", annotation.file)
