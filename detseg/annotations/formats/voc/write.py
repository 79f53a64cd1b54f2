"""Write a table as a Pascal VOC folder: Annotations/, ImageSets/Main/, and the image paths for JPEGImages/."""

from __future__ import annotations

import os
import re
from decimal import Decimal
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
import numpy.typing as npt

from detseg.annotations.coordinate_frame import Frame
from detseg.annotations.formats.shared.output_paths import image_names, new_folder
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.voc.xml import EXACT
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable, Record
from detseg.errors import DataError
from detseg.runtime.files import atomic_write, write_text

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def write_voc(table: AnnotationTable, folder: str | os.PathLike[str]) -> WriteResult:
    """Write one XML file per image, in the data set's original frame (EXIF), and lists of the splits.

    Corners are half-open and start at 0, with all digits: ``read_voc`` returns bit-identical boxes. Crowd
    and ignored objects become ``difficult``, with a note. Images without a split are in no list.

    Args:
        folder: a new or empty folder.

    Raises:
        DataError: the folder is not empty; two images differ only in their suffix; class labels of whole images;
            a name that XML cannot represent.
        OSError: the folder cannot be written.
    """
    names = image_names(table, "Pascal VOC")
    for name in (*names, *table.class_map.names):
        if _NOT_XML.search(name) or "\n" in name:
            raise DataError(
                f"{table.source}: the name {name!r} contains control characters, which XML does not allow; rename it"
            )
    root = new_folder(folder)
    notes = RepairLog()
    for index, (record, name) in enumerate(zip(table, names, strict=True)):
        tree = _annotation(table, index, record, name, notes)
        indent(tree)
        with atomic_write(root / "Annotations" / PurePosixPath(name).with_suffix(".xml")) as file:
            file.write(tostring(tree, encoding="utf-8", xml_declaration=True) + b"\n")
    _write_lists(table, names, root, notes)
    return WriteResult([f"JPEGImages/{name}" for name in names], notes)


def _annotation(table: AnnotationTable, index: int, record: Record, name: str, notes: RepairLog) -> Element:
    stored_frame = bool(table.stored_frame[index])
    height, width = record.stored_hw if stored_frame else record.size_hw
    frame = Frame(record.stored_hw, record.orientation if stored_frame else 1)
    tree = Element("annotation")
    _add(tree, "folder", "JPEGImages")
    _add(tree, "filename", PurePosixPath(name).name)
    size = SubElement(tree, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        _add(size, tag, str(value))
    _add(tree, "segmented", "0")
    for row, label in enumerate(record.labels.tolist()):
        box, _, _ = frame.from_upright(record.boxes_xywh[row], None, None)
        assert box is not None
        _note_losses(record, row, f"{name}, object {row + 1}", notes)
        object_element = SubElement(tree, "object")
        _add(object_element, "name", table.class_map.name_of(label))
        _add(object_element, "pose", "Unspecified")
        _add(object_element, "truncated", "0")
        _add(object_element, "difficult", str(int(record.difficult[row] or record.iscrowd[row] or record.ignore[row])))
        _add_box(object_element, box)
    if record.group:
        notes.add("group of an image not written", name)
    return tree


def _add_box(object_element: Element, box_xywh: npt.NDArray[np.float64]) -> None:
    x, y, w, h = (Decimal(repr(number)) for number in box_xywh.tolist())
    bndbox = SubElement(object_element, "bndbox")
    corners = {"xmin": x, "ymin": y, "xmax": EXACT.add(x, w), "ymax": EXACT.add(y, h)}
    for tag, value in corners.items():
        _add(bndbox, tag, f"{value:f}")


def _note_losses(record: Record, row: int, where: str, notes: RepairLog) -> None:
    if record.iscrowd[row]:
        notes.add("crowd written as difficult", where)
    if record.ignore[row]:
        notes.add("ignored object written as difficult", where)
    if record.segmentations[row] is not None:
        notes.add("mask not written (only its box)", where)
    elif abs(record.areas[row] - record.boxes_xywh[row, 2] * record.boxes_xywh[row, 3]) > 0.5:
        notes.add("area different from width x height not written", where)
    if record.keypoints is not None and (record.keypoints[row, :, 2] > 0).any():
        notes.add("keypoints not written", where)


def _write_lists(table: AnnotationTable, names: list[str], root: Path, notes: RepairLog) -> None:
    lists: dict[str, list[str]] = {}
    for name, split in zip(names, table.split.tolist(), strict=True):
        if split:
            lists.setdefault(split, []).append(str(PurePosixPath(name).with_suffix("")))
    if "train" in lists or "val" in lists:
        lists["trainval"] = [*lists.get("train", ()), *lists.get("val", ())]
    for split, split_names in lists.items():
        write_text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in split_names))
    if lists:
        for name, split in zip(names, table.split.tolist(), strict=True):
            if not split:
                notes.add("image without a split not listed in ImageSets/Main", name)


def _add(parent: Element, tag: str, text: str) -> None:
    SubElement(parent, tag).text = text
