"""Build an annotation table image by image; every instance is checked here, once, for all readers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.box_mending import ImageFrames, checked_boxes
from detseg.annotations.columns import ROUNDING, InstanceColumns
from detseg.annotations.instance_box import box_problem, choose_box, format_box
from detseg.annotations.instances import Instances
from detseg.annotations.keypoints import check_keypoints
from detseg.annotations.lost_objects import LostObjects
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema
from detseg.masks import segmentation_area
from detseg.media.video_files import split_frame
from detseg.orientation import upright_hw

MAX_SIDE = 1_000_000
"""Pixels. A larger number is a corrupt value, not the side of an image."""


class TableBuilder:
    """Collect images and instances, and build one :class:`AnnotationTable` from them.

    The only place that applies the policy for bad instances: corners in any order are sorted; a box that is empty,
    outside the image or missing is replaced by that of the outline or of the keypoints (``instance_box.py``), and
    without these the instance is dropped; a box that overlaps the image border is clipped. All are counted in
    ``notes``. With ``bad_instances="error"`` an instance that would be dropped is an error; with "mend" boxes that are
    all corners, centres or normalised, or of another rotation of their image, are converted. Numbers that are not
    finite, unknown labels and repeated image ids are always errors. An image that lost all its objects is left out.

    Args:
        class_map: the classes; labels are checked against it.
        root: folder that ``media`` is relative to.
        source: name of the data set in messages (usually the name of the annotation file).
        bad_instances: "drop", "error" or "mend".
        keypoint_schema: the keypoints of each instance; None for a data set without keypoints.
        label_fields: the T fields of ``class_index`` [I, T] if images have several labels; ``class_map`` is then
            ``joined(label_fields)``.

    Attributes:
        notes: log of the repairs so far; readers add entries for their own repairs.
    """

    def __init__(
        self,
        class_map: ClassMap,
        root: str | os.PathLike[str],
        *,
        source: str,
        bad_instances: str = "drop",
        keypoint_schema: KeypointSchema | None = None,
        label_fields: Sequence[LabelField] = (),
    ) -> None:
        if bad_instances not in ("drop", "error", "mend"):
            raise DataError(f"bad_instances is {bad_instances!r}; choose drop, error or mend")
        assert not label_fields or class_map == joined(label_fields), "class_map is not joined(label_fields)"
        self.class_map = class_map
        self.root = Path(root)
        self.source = source
        self.notes = RepairLog()
        self._strict, self._mend = bad_instances == "error", bad_instances == "mend"
        self._schema = keypoint_schema
        self._num_labels = len(class_map)
        self._label_fields = tuple(label_fields)
        self._field_sizes = [len(field) for field in label_fields] or [len(class_map)]

        self._row_of_id: dict[int, int] = {}
        self._names: list[str] = []
        self._media: list[str] = []
        self._member: list[str] = []
        self._group: list[str] = []
        self._split: list[str] = []
        self._stored: list[tuple[int, int]] = []
        self._upright: list[tuple[int, int]] = []
        self._frame: list[int] = []
        self._orientation: list[int] = []
        self._stored_frame: list[bool] = []
        self._class_index: list[Sequence[int]] = []

        self._instances = Instances(0 if keypoint_schema is None else len(keypoint_schema.names))
        self._lost: dict[int, int] = {}  # row of an image -> objects dropped

    def add_image(
        self,
        media: str | os.PathLike[str],
        stored_hw: tuple[int, int],
        *,
        image_id: int | None = None,
        orientation: int = 1,
        stored_frame: bool = False,
        member: str = "",
        frame: int = -1,
        group: str = "",
        split: str = "",
        class_index: int | Sequence[int] | None = None,
    ) -> None:
        """Add one image; instances added after it belong to it.

        Args:
            media: file, relative to ``root`` (an absolute path inside ``root`` is made relative); "" if there is none.
                A frame of a video is ``clip.mp4/frame_000123.png``; its video is then its group.
            stored_hw: height and width as stored in the file, 1 to ``MAX_SIDE``.
            image_id: the id in the source; None: the number of the image, from 1.
            orientation: EXIF orientation 1..8 of the stored pixels.
            stored_frame: the source's coordinates are those of the stored pixels (needed to write them back).
            member, frame: the member of an archive, the frame number in a video.
            group: images of one group are put into the same split.
            split: the split in the source: "train", "val", "test" or "".
            class_index: 0..K-1 for classification, one number or one for each label field (within its classes); None or
                -1 for no label.

        Raises:
            DataError: a size or class_index out of range, or an image id that is already used.
        """
        row = len(self._names)
        name = _relative(media, self.root) if not isinstance(media, str) else media
        display_name = f"{name}:{member}" if member else name or f"image {row}"
        height, width = int(stored_hw[0]), int(stored_hw[1])
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            raise DataError(
                f"{self.source} ({display_name}): image size {width} x {height} (width x height) is not a valid size; "
                "correct it in the source"
            )
        image_id = row + 1 if image_id is None else int(image_id)
        if image_id in self._row_of_id:
            raise DataError(
                f"{self.source}: image id {image_id} is used by {self._names[self._row_of_id[image_id]]} and by "
                f"{display_name}; give every image a unique id"
            )
        if not -(2**63) <= image_id < 2**63:
            raise DataError(
                f"{self.source} ({display_name}): image id {image_id} does not fit in 64 bits; renumber the images"
            )
        if class_index is None:
            class_index = [-1] * len(self._field_sizes)
        elif isinstance(class_index, (int, np.integer)):
            class_index = [int(class_index)]
        if len(class_index) != len(self._field_sizes):
            raise DataError(
                f"{self.source} ({display_name}): {len(class_index)} class labels, expected {len(self._field_sizes)}"
            )
        if any(not -1 <= index < size for index, size in zip(class_index, self._field_sizes, strict=True)):
            limits = ", ".join(f"0..{size - 1}" for size in self._field_sizes)
            raise DataError(f"{self.source} ({display_name}): class_index {list(class_index)} is outside {limits}")
        if (parts := split_frame(name)) is not None and frame < 0:
            frame, group = parts[1], group or parts[0]
        self._row_of_id[image_id] = row
        self._names.append(display_name)
        self._media.append(name)
        self._member.append(member)
        self._group.append(group)
        self._split.append(split)
        self._stored.append((height, width))
        self._upright.append(upright_hw((height, width), orientation))
        self._frame.append(frame)
        self._orientation.append(orientation)
        self._stored_frame.append(stored_frame)
        self._class_index.append(class_index)

    def add_images(
        self,
        media: Sequence[str],
        stored_hw: Sequence[tuple[int, int]],
        image_id: Sequence[int],
        *,
        orientation: Sequence[int],
        stored_frame: Sequence[bool],
        split: str = "",
    ) -> None:
        """Add many image files at once, as :meth:`add_image` does.

        Raises:
            DataError: as :meth:`add_image`; ids must fit in 64 bits.
        """
        first, number = len(self._names), len(media)
        sizes = np.array(stored_hw, np.int64).reshape(-1, 2)
        all_ids = self._row_of_id.keys() | set(image_id)
        if ((sizes < 1) | (sizes > MAX_SIDE)).any() or len(all_ids) < first + number:
            for name, hw, new_id in zip(media, stored_hw, image_id, strict=True):
                self.add_image(name, hw, image_id=new_id)  # raises for one of them
        self._row_of_id.update(zip(image_id, range(first, first + number), strict=True))
        self._names.extend([name or f"image {first + i}" for i, name in enumerate(media)])
        self._media.extend(media)
        self._member.extend([""] * number)
        frames = [split_frame(name) or ("", -1) for name in media]
        self._group.extend([video for video, _ in frames])
        self._split.extend([split] * number)
        self._stored.extend(stored_hw)
        self._upright.extend(
            [hw if exif == 1 else upright_hw(hw, exif) for hw, exif in zip(stored_hw, orientation, strict=True)]
        )
        self._frame.extend([frame for _, frame in frames])
        self._orientation.extend(orientation)
        self._stored_frame.extend(stored_frame)
        self._class_index.extend([[-1] * len(self._field_sizes)] * number)

    def add_instance(
        self,
        box_xywh: Sequence[float] | npt.NDArray[np.floating] | None,
        label: int,
        *,
        segmentation: Segmentation = None,
        area: float | None = None,
        iscrowd: bool = False,
        ignore: bool = False,
        difficult: bool = False,
        annotation_id: int = -1,
        keypoints: npt.NDArray[np.floating] | None = None,
        where: str = "",
        image: int = -1,
    ) -> bool:
        """Add one instance; True if it was added, False if it was dropped (and logged in ``notes``).

        Args:
            box_xywh: x, y, width, height in upright absolute pixels; None: computed from ``segmentation``, else from
                ``keypoints``.
            label: 1..K.
            segmentation: rings float64 [V, 2] or compressed RLE, upright, already checked (``detseg.masks``).
            area: square pixels; None: that of the segmentation, or width x height of the clipped box.
            iscrowd, ignore: not used in training, and not counted as missed in evaluation.
            difficult: used in training, but not counted as missed in evaluation.
            annotation_id: the id in the source, for messages.
            keypoints: [P, 3] x, y, visibility 0..2 in upright pixels; None if none is labelled.
            where: name of the instance in messages; if empty, built from the source, the id and the image.
            image: row of its image; -1 for the image added last.

        Raises:
            DataError: numbers that are not finite, an unknown label, keypoints or an RLE of a wrong size; with
                ``bad_instances="error"`` also a box that is missing, empty or outside the image.
        """
        row = image if image >= 0 else len(self._names) - 1
        assert 0 <= row < len(self._names), "call add_image before add_instance"
        where = where or self._instance_name(annotation_id, row)
        height, width = self._upright[row]
        if not 1 <= label <= self._num_labels:
            raise DataError(f"{where}: label {label} is outside 1..{self._num_labels}")
        if isinstance(segmentation, dict) and tuple(segmentation["size"]) != (height, width):
            raise DataError(
                f"{where}: RLE of size {list(segmentation['size'])} in an upright image of "
                f"height {height} and width {width}; both must be equal"
            )
        box = choose_box(box_xywh, segmentation, keypoints, (height, width), where, self.notes)
        x, y, w, h = (nan,) * 4 if box is None else box
        if not ((box is None or isfinite(x + y + w + h)) and (area is None or isfinite(area))):
            raise DataError(
                f"{where}: box {format_box((x, y, w, h))}, area {area}: not all of these numbers "
                "are finite; correct or remove the instance"
            )
        if box is not None:
            self._instances.record_source_box(row, box)
            if area is not None and area <= 0 and (box_xywh is None or box != tuple(box_xywh)):
                area = None  # that of the box which is not used
        problem = "box, outline and keypoints are missing" if box is None else box_problem(box, (height, width))
        if problem:
            subject = problem if box is None else f"box {format_box(box)} {problem}"
            if self._strict:
                raise DataError(f"{where}: {subject}; remove it or pass --bad-instances drop")
            reason = problem if box is None else f"it {problem}"
            self.notes.add(f"box dropped: {reason}", where if box is None else f"{where} {format_box(box)}")
            self.lose(image=row)
            return False
        if x < 0 or y < 0 or w > width - x + ROUNDING or h > height - y + ROUNDING:
            self.notes.add("box clipped to the image", f"{where} {format_box((x, y, w, h))}")
            x, w = (0.0, x + w) if x < 0 else (x, w)
            y, h = (0.0, y + h) if y < 0 else (y, h)
            w, h = min(w, width - x), min(h, height - y)
        points = None
        if self._schema is not None:
            points = check_keypoints(keypoints, self._schema, (height, width), where, self.notes)
        if area is None:
            area = w * h if segmentation is None else segmentation_area(segmentation, (height, width))
        flags = bool(iscrowd), bool(ignore), bool(difficult)
        self._instances.append(row, (x, y, w, h), label, area, flags, annotation_id, segmentation, points)
        return True

    def add_instances(
        self, columns: InstanceColumns, regular: npt.NDArray[np.bool_], add: Callable[[int], object]
    ) -> None:
        """Add many instances at once, to any images; the order within an image is preserved.

        Args:
            columns: N instances. Their keypoints must be checked already.
            regular: bool [N], instances that are added unchanged: a subset of ``columns.regular(self.sizes_hw, K)``.
            add: called with the index of each remaining instance, by ascending image: adds it with
                :meth:`add_instance`, or skips it.
        """
        self._instances.extend(columns, regular, add)

    def lose(self, number: int = 1, *, image: int = -1) -> None:
        """Count objects of an image (a row; -1 for the last one) that a reader could not add, and noted itself."""
        if number:
            row = image if image >= 0 else len(self._names) - 1
            self._lost[row] = self._lost.get(row, 0) + number

    @property
    def sizes_hw(self) -> npt.NDArray[np.int64]:
        """int64 [I, 2]: upright height and width of the images added so far."""
        return np.array(self._upright, np.int64).reshape(-1, 2)

    def build(self, *, keep_all_images: bool = False) -> AnnotationTable:
        """Build the table of all images and instances that were added.

        Args:
            keep_all_images: keep images that lost all their objects; else they are left out (``table.lost``).

        Raises:
            DataError: the boxes as a whole cannot be x, y, width, height in pixels of these images
                (``annotations/plausibility.py``), or all images lost all their objects.
        """
        boxes, image = self._instances.source_boxes()
        instances, number = self._instances.in_order(), len(self._names)
        frames = ImageFrames(self._stored, self._orientation, self._stored_frame, self._names)
        instances = checked_boxes(instances, boxes, image, frames, self.source, self.notes, mend=self._mend)
        per_image = np.bincount(instances.image, minlength=number).astype(np.int64)
        stop = np.cumsum(per_image)
        stored = np.array(self._stored, np.int32).reshape(-1, 2)
        table = AnnotationTable(
            class_map=self.class_map,
            root=self.root,
            image_id=np.array(list(self._row_of_id), np.int64),
            record=np.arange(number, dtype=np.int64),
            media=_strings(self._media),
            member=_strings(self._member),
            frame=np.array(self._frame, np.int32),
            height=np.ascontiguousarray(stored[:, 0]),
            width=np.ascontiguousarray(stored[:, 1]),
            orientation=np.array(self._orientation, np.int8),
            stored_frame=np.array(self._stored_frame, np.bool_),
            group=_strings(self._group),
            split=_strings(self._split),
            class_index=np.array(self._class_index, np.int64).reshape(number, len(self._field_sizes)),
            start=stop - per_image,
            stop=stop,
            boxes_xywh=instances.boxes_xywh,
            label=instances.label,
            area=instances.area,
            iscrowd=instances.iscrowd,
            ignore=instances.ignore,
            difficult=instances.difficult,
            annotation_id=instances.annotation_id,
            segmentation=instances.segmentation,
            keypoints=None if self._schema is None else instances.keypoints,
            keypoint_schema=self._schema,
            label_fields=self._label_fields,
            source=self.source,
            notes=self.notes,
        )
        return self._without_emptied(table, keep_all_images)

    def _without_emptied(self, table: AnnotationTable, keep_all_images: bool) -> AnnotationTable:
        """``table`` without the images that lost all their objects, and with ``lost``."""
        if not self._lost:
            return table
        emptied = {row for row in self._lost if table.start[row] == table.stop[row] and not keep_all_images}
        objects = sum(self._lost.values())
        left_out = tuple(self._names[row] for row in sorted(emptied))
        lost = LostObjects(objects, objects + len(table.label), len(self._lost), left_out)
        if len(emptied) == len(table):
            raise DataError(
                f"{self.source}: no image has an object that can be used; {lost.line()} "
                f"({'; '.join(self.notes.lines())}); correct them, or remove them where an image has no objects"
            )
        kept = [row for row in range(len(table)) if row not in emptied]
        return replace(table.subset(kept), record=np.arange(len(kept), dtype=np.int64), lost=lost)

    def _instance_name(self, annotation_id: int, row: int) -> str:
        number = f", annotation {annotation_id}" if annotation_id >= 0 else ""
        return f"{self.source}{number} ({self._names[row]})"


def _relative(media: os.PathLike[str], root: Path) -> str:
    path = Path(media)
    return (path.relative_to(root) if path.is_absolute() and path.is_relative_to(root) else path).as_posix()


def _strings(values: list[str]) -> Any:  # Strings; numpy's stubs cannot express it
    return np.array(values, dtype=np.dtypes.StringDType())
