"""How every reader makes a table: image by image, each instance checked once at this border."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.columns import ROUNDING, InstanceColumns
from detseg.annotations.instances import Instances
from detseg.annotations.keypoints import check_keypoints
from detseg.annotations.plausible import check_plausible
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema
from detseg.masks import segmentation_area, segmentation_box
from detseg.orientation import upright_hw

MAX_SIDE = 1_000_000
"""Pixels. A longer side is a corrupt number, not an image."""


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
        self.notes = RepairLog()
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

        self._instances = Instances(0 if keypoint_schema is None else len(keypoint_schema.names))

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
        """As :meth:`add_image` for many files.

        Raises:
            DataError: see there; ids must fit 64 bits.
        """
        first, number = len(self._names), len(media)
        sizes = np.array(stored_hw, np.int64).reshape(-1, 2)
        known = self._row_of_id.keys() | set(image_id)
        if ((sizes < 1) | (sizes > MAX_SIDE)).any() or len(known) < first + number:
            for name, hw, own_id in zip(media, stored_hw, image_id, strict=True):
                self.add_image(name, hw, image_id=own_id)  # one of them is refused
        self._row_of_id.update(zip(image_id, range(first, first + number), strict=True))
        self._names.extend([name or f"image {first + i}" for i, name in enumerate(media)])
        self._media.extend(media)
        self._member.extend([""] * number)
        self._group.extend([""] * number)
        self._split.extend([split] * number)
        self._stored.extend(stored_hw)
        self._upright.extend(
            [hw if turn == 1 else upright_hw(hw, turn) for hw, turn in zip(stored_hw, orientation, strict=True)]
        )
        self._frame.extend([-1] * number)
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
        """Add one instance; True if it was kept, False if it was dropped (and noted).

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
            image: row of the image that it belongs to; -1 for the last one.

        Raises:
            DataError: numbers that are not finite, an unknown label, keypoints or an RLE of another size, no box and
                no segmentation; with ``bad_instances="error"`` also a box that is empty or outside the frame.
        """
        row = image if image >= 0 else len(self._names) - 1
        assert 0 <= row < len(self._names), "add_image comes before add_instance"
        where = where or self._called(annotation_id, row)
        height, width = self._upright[row]
        if not 1 <= label <= self._num_labels:
            raise DataError(f"{where}: label {label} is outside 1..{self._num_labels}")
        if isinstance(segmentation, dict) and tuple(segmentation["size"]) != (height, width):
            raise DataError(
                f"{where}: RLE of size {list(segmentation['size'])} in an upright image of "
                f"height {height} and width {width}; make both the same"
            )
        if box_xywh is None:
            if segmentation is None:
                raise DataError(f"{where}: neither box nor segmentation; give one of them")
            box_xywh = segmentation_box(segmentation)
        x, y, w, h = (float(value) for value in box_xywh)
        if not (isfinite(x + y + w + h) and (area is None or isfinite(area))):
            raise DataError(
                f"{where}: box {_shown(x, y, w, h)}, area {area}: not all of these numbers "
                "are finite; correct or remove the instance"
            )
        self._instances.give(row, (x, y, w, h))
        problem = _problem(x, y, w, h, height, width)
        if problem:
            if self._strict:
                raise DataError(f"{where}: box {_shown(x, y, w, h)} {problem}; remove it or pass --bad-instances drop")
            self.notes.add(f"box that {problem} dropped", f"{where} {_shown(x, y, w, h)}")
            return False
        if x < 0 or y < 0 or w > width - x + ROUNDING or h > height - y + ROUNDING:
            self.notes.add("box clipped at the frame", f"{where} {_shown(x, y, w, h)}")
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
        """Add many instances at once, to any images; within an image they keep their order.

        Args:
            columns: N instances. Their keypoints have been checked.
            regular: bool [N], those that are taken as they are: at most ``columns.regular(self.sizes_hw, K)``.
            add: called with the number of each other one, by ascending image: adds it by :meth:`add_instance`, or
                leaves it out.
        """
        self._instances.extend(columns, regular, add)

    @property
    def sizes_hw(self) -> npt.NDArray[np.int64]:
        """int64 [I, 2]: upright height and width of the images so far."""
        return np.array(self._upright, np.int64).reshape(-1, 2)

    def build(self) -> AnnotationTable:
        """The table of everything that was added.

        Raises:
            DataError: the boxes as a whole cannot be pixels x, y, width, height of these images
                (``annotations/plausible.py``).
        """
        boxes, image = self._instances.given()
        check_plausible(boxes, self.sizes_hw[image], self.source)
        instances, number = self._instances.in_order(), len(self._names)
        per_image = np.bincount(instances.image, minlength=number).astype(np.int64)
        stop = np.cumsum(per_image)
        stored = np.array(self._stored, np.int32).reshape(-1, 2)
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

    def _called(self, annotation_id: int, row: int) -> str:
        number = f", annotation {annotation_id}" if annotation_id >= 0 else ""
        return f"{self.source}{number} ({self._names[row]})"


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


def _shown(*numbers: float) -> str:
    return f"[{', '.join(f'{number:.6g}' for number in numbers)}]"
