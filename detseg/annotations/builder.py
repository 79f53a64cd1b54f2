"""How every reader makes a table: image by image, each instance checked once at this border."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.notes import Notes
from detseg.annotations.plausible import check_plausible
from detseg.annotations.segmentation import Segmentation, SegmentationColumn
from detseg.annotations.table import AnnotationTable, KeypointSchema
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.masks import segmentation_area, segmentation_box
from detseg.orientation import upright_hw

MAX_SIDE = 1_000_000
"""Pixels. A longer side is a damaged number, not a picture."""

ROUNDING = 1e-9
"""Pixels by which x + width may pass the frame unclipped: decimals of a file do not add up exactly in binary."""


class TableBuilder:
    """Collects images and instances and makes one :class:`AnnotationTable` of them.

    The one place where the policy for bad instances lives: a box that overlaps the frame is clipped, and an empty box
    or one outside the frame is dropped; both are counted in ``notes``. ``bad_instances="error"`` refuses what would be
    dropped. Numbers that are not finite, unknown labels and repeated image ids are always errors.

    Args:
        class_map: the classes; labels are checked against it.
        root: folder that ``media`` is relative to.
        source: what messages call the data set (usually the name of the annotation file).
        bad_instances: "drop" or "error".
        keypoint_schema: the keypoints of every instance; None for a data set without keypoints.
        label_fields: the T fields of ``class_index`` [I, T] when an image carries several labels; ``class_map`` is then
            ``joined(label_fields)``.

    Attributes:
        notes: what was repaired so far; a reader adds its own.
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
        if bad_instances not in ("drop", "error"):
            raise DataError(f"bad_instances is {bad_instances!r}; choose drop or error")
        assert not label_fields or class_map == joined(label_fields), "class_map is not that of the label fields"
        self.class_map = class_map
        self.root = Path(root)
        self.source = source
        self.notes = Notes()
        self._strict = bad_instances == "error"
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
        self._start: list[int] = []

        self._boxes = array("d")
        self._label: list[int] = []
        self._area: list[float] = []
        self._iscrowd: list[bool] = []
        self._ignore: list[bool] = []
        self._difficult: list[bool] = []
        self._annotation_id: list[int] = []
        self._segmentation: list[Segmentation] = []
        self._keypoints: list[npt.NDArray[np.float64]] = []

        self._given_boxes = array("d")  # as given, dropped ones too: evidence for check_plausible
        self._given_image = array("q")

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
        """Add one image; the instances that follow belong to it.

        Args:
            media: file, relative to ``root`` (an absolute path inside ``root`` is made relative); "" for none.
            stored_hw: height and width as stored in the file, 1 to ``MAX_SIDE``.
            image_id: the source's own id; the number of the image, from 1, if None.
            orientation: EXIF orientation 1..8 of the stored pixels.
            stored_frame: the source's own coordinates are those of the stored pixels (needed to write them back).
            member, frame: the member of an archive, the frame of a video.
            group: images of one group stay on one side of a split.
            split: the source's own split: "train", "val", "test" or "".
            class_index: 0..K-1 for classification, one number or one for each label field (within its classes); None or
                -1 for none.

        Raises:
            DataError: a size or class_index out of range, or an image id that was used before.
        """
        row = len(self._names)
        name = _relative(media, self.root) if not isinstance(media, str) else media
        called = f"{name}:{member}" if member else name or f"image {row}"
        height, width = int(stored_hw[0]), int(stored_hw[1])
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            raise DataError(
                f"{self.source} ({called}): image size {width} x {height} (width x height) is not a size; "
                "correct it in the source"
            )
        image_id = row + 1 if image_id is None else int(image_id)
        if image_id in self._row_of_id:
            raise DataError(
                f"{self.source}: image id {image_id} is used by {self._names[self._row_of_id[image_id]]} and by "
                f"{called}; give every image an id of its own"
            )
        if not -(2**63) <= image_id < 2**63:
            raise DataError(f"{self.source} ({called}): image id {image_id} does not fit 64 bits; renumber the images")
        if class_index is None:
            class_index = [-1] * len(self._field_sizes)
        elif isinstance(class_index, (int, np.integer)):
            class_index = [int(class_index)]
        if len(class_index) != len(self._field_sizes):
            raise DataError(
                f"{self.source} ({called}): {len(class_index)} class labels, expected {len(self._field_sizes)}"
            )
        if any(not -1 <= index < size for index, size in zip(class_index, self._field_sizes, strict=True)):
            limits = ", ".join(f"0..{size - 1}" for size in self._field_sizes)
            raise DataError(f"{self.source} ({called}): class_index {list(class_index)} is outside {limits}")
        self._row_of_id[image_id] = row
        self._names.append(called)
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
        self._start.append(len(self._label))

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
    ) -> bool:
        """Add one instance to the last image; True if it was kept, False if it was dropped (and noted).

        Args:
            box_xywh: x, y, width, height in upright absolute pixels; None takes it from ``segmentation``.
            label: 1..K.
            segmentation: rings float64 [V, 2] or compressed RLE, upright, already checked (``detseg.masks``).
            area: square pixels; None takes that of the segmentation, or width x height of the clipped box.
            iscrowd, ignore: neither is trained on, nor counted as missed.
            difficult: trained on, but not counted as missed.
            annotation_id: the source's own id, for messages.
            keypoints: [P, 3] x, y, visibility 0..2 in upright pixels; None for none labelled.
            where: what messages call the instance; made from the source, the id and the image if empty.

        Raises:
            DataError: numbers that are not finite, an unknown label, keypoints or an RLE of another size, no box and
                no segmentation; with ``bad_instances="error"`` also a box that is empty or outside the frame.
        """
        row = len(self._names) - 1
        assert row >= 0, "add_image comes before add_instance"
        height, width = self._upright[row]
        if not 1 <= label <= self._num_labels:
            raise DataError(f"{self._where(where, annotation_id)}: label {label} is outside 1..{self._num_labels}")
        if isinstance(segmentation, dict) and tuple(segmentation["size"]) != (height, width):
            raise DataError(
                f"{self._where(where, annotation_id)}: RLE of size {list(segmentation['size'])} in an upright image of "
                f"height {height} and width {width}; make both the same"
            )
        if box_xywh is None:
            if segmentation is None:
                raise DataError(f"{self._where(where, annotation_id)}: neither box nor segmentation; give one of them")
            box_xywh = segmentation_box(segmentation)
        x, y, w, h = (float(value) for value in box_xywh)
        if not (isfinite(x + y + w + h) and (area is None or isfinite(area))):
            raise DataError(
                f"{self._where(where, annotation_id)}: box {_shown(x, y, w, h)}, area {area}: not all of these numbers "
                "are finite; correct or remove the instance"
            )
        self._given_boxes.extend((x, y, w, h))
        self._given_image.append(row)

        problem = _problem(x, y, w, h, height, width)
        if problem:
            if self._strict:
                raise DataError(
                    f"{self._where(where, annotation_id)}: box {_shown(x, y, w, h)} {problem}; remove it or pass "
                    "--bad-instances drop"
                )
            self.notes.add(f"box that {problem} dropped", f"{self._where(where, annotation_id)} {_shown(x, y, w, h)}")
            return False
        if x < 0 or y < 0 or w > width - x + ROUNDING or h > height - y + ROUNDING:
            self.notes.add("box clipped at the frame", f"{self._where(where, annotation_id)} {_shown(x, y, w, h)}")
            x, w = (0.0, x + w) if x < 0 else (x, w)
            y, h = (0.0, y + h) if y < 0 else (y, h)
            w, h = min(w, width - x), min(h, height - y)
        if self._schema is not None:
            self._keypoints.append(self._checked_keypoints(keypoints, (height, width), where, annotation_id))
        if area is None:
            area = w * h if segmentation is None else segmentation_area(segmentation, (height, width))
        self._boxes.extend((x, y, w, h))
        self._label.append(int(label))
        self._area.append(float(area))
        self._iscrowd.append(bool(iscrowd))
        self._ignore.append(bool(ignore))
        self._difficult.append(bool(difficult))
        self._annotation_id.append(annotation_id)
        self._segmentation.append(segmentation)
        return True

    def build(self) -> AnnotationTable:
        """The table of everything that was added.

        Raises:
            DataError: the boxes as a whole cannot be pixels x, y, width, height of these images
                (``annotations/plausible.py``).
        """
        sizes = np.array(self._upright, np.int64).reshape(-1, 2)
        given_image = np.array(self._given_image, np.int64)
        check_plausible(_rows_of_four(self._given_boxes), sizes[given_image], self.source)
        stored = np.array(self._stored, np.int32).reshape(-1, 2)
        number = len(self._names)
        stop = [*self._start[1:], len(self._label)] if number else []
        schema = self._schema
        keypoints = None
        if schema is not None:
            keypoints = np.array(self._keypoints, np.float64).reshape(len(self._label), len(schema.names), 3)
        return AnnotationTable(
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
            start=np.array(self._start, np.int64),
            stop=np.array(stop, np.int64),
            boxes_xywh=_rows_of_four(self._boxes),
            label=np.array(self._label, np.int32),
            area=np.array(self._area, np.float64),
            iscrowd=np.array(self._iscrowd, np.bool_),
            ignore=np.array(self._ignore, np.bool_),
            difficult=np.array(self._difficult, np.bool_),
            annotation_id=np.array(self._annotation_id, np.int64),
            segmentation=SegmentationColumn.from_list(self._segmentation),
            keypoints=keypoints,
            keypoint_schema=schema,
            label_fields=self._label_fields,
            source=self.source,
            notes=self.notes,
        )

    def _checked_keypoints(
        self, keypoints: npt.NDArray[np.floating] | None, size_hw: tuple[int, int], where: str, annotation_id: int
    ) -> npt.NDArray[np.float64]:
        assert self._schema is not None
        shape = (len(self._schema.names), 3)
        if keypoints is None:
            return np.zeros(shape)
        points = np.asarray(keypoints, np.float64)
        if points.shape != shape or not np.isfinite(points).all():
            raise DataError(
                f"{self._where(where, annotation_id)}: keypoints {points.tolist()} are not {shape[0]} points of finite "
                "x, y, visibility"
            )
        if not np.isin(points[:, 2], (0, 1, 2)).all():
            raise DataError(
                f"{self._where(where, annotation_id)}: keypoint visibility {points[:, 2].tolist()}; known are 0 (not "
                "labelled), 1 (hidden) and 2 (visible)"
            )
        inside = ((points[:, :2] >= 0) & (points[:, :2] <= size_hw[::-1])).all(axis=1)
        for index in np.flatnonzero(~inside & (points[:, 2] > 0)).tolist():
            what = f"{self._schema.names[index]} {points[index, :2].tolist()}"
            self.notes.add("keypoint outside the picture not trained on", f"{self._where(where, annotation_id)} {what}")
        return points

    def _where(self, where: str, annotation_id: int) -> str:
        if where:
            return where
        number = f", annotation {annotation_id}" if annotation_id >= 0 else ""
        return f"{self.source}{number} ({self._names[-1]})"


def _problem(x: float, y: float, w: float, h: float, height: int, width: int) -> str:
    """Why a box cannot be kept, as the end of a sentence; "" if it can."""
    if w <= 0:
        return "has no width"
    if h <= 0:
        return "has no height"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "lies outside the frame"
    return ""


def _relative(media: os.PathLike[str], root: Path) -> str:
    path = Path(media)
    return (path.relative_to(root) if path.is_absolute() and path.is_relative_to(root) else path).as_posix()


def _strings(values: list[str]) -> Any:  # Strings; numpy's stubs cannot say so
    return np.array(values, dtype=np.dtypes.StringDType())


def _rows_of_four(numbers: array[float]) -> npt.NDArray[np.float64]:
    return np.array(numbers, np.float64).reshape(-1, 4)


def _shown(*numbers: float) -> str:
    return f"[{', '.join(f'{number:.6g}' for number in numbers)}]"
