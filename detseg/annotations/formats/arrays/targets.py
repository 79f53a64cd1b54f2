"""Convert the arrays beside one image to its objects, or to its class labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.shared.label_rows import ONLY_COLUMN
from detseg.annotations.formats.shared.shapes import ONLY_CLASS, ShapeAnnotation, ShapeInstance
from detseg.annotations.instance_box import landmark_box
from detseg.annotations.repair_log import RepairLog
from detseg.array_images import read_array, read_array_shape
from detseg.errors import DataError
from detseg.postprocess import mask_to_box_rle

ROUNDED = "float16 coordinates over 2,048 are rounded to even pixels or more: save float32"
FLOAT16_EXACT = 2048
"""Integers up to this are exact in float16; above, only even ones are."""

Array = npt.NDArray[Any]
_NUMBERS = "iuf"


class Targets:
    """The arrays of one image.

    Args:
        root: the data folder.
        files: kind ("boxes", ...) -> file, relative to ``root``.
        names: of the label values 0, 1, ...; empty if they have none.
        notes: what is unusual is noted here.
    """

    def __init__(self, root: Path, files: Mapping[str, str], names: Sequence[str], notes: RepairLog) -> None:
        self._root, self.files, self._names, self._notes = root, files, names, notes

    def landmark_count(self) -> int:
        """P, of landmarks [N, P, 2 or 3] or [P, 2 or 3]; 0 for none."""
        if "landmarks" not in self.files:
            return 0
        shape = read_array_shape(self._root / self.files["landmarks"], self.files["landmarks"])
        return shape[-2] if len(shape) in (2, 3) and 0 not in shape else 0

    def add_objects(self, annotation: ShapeAnnotation, points: int, has_labels: bool) -> None:
        """Add the objects: as many as there are boxes, masks or landmarks; none if these files are missing or empty.

        Args:
            points: number of landmarks of each object in the data set.
            has_labels: whether the data set has labels; without any, all objects are of one class.

        Raises:
            DataError: arrays of another type or shape, or of different numbers of objects.
        """
        parts = {"boxes": self._boxes(), "masks": self._masks(), "landmarks": self._landmarks()}
        sizes = {kind: len(part) for kind, part in parts.items() if part is not None}
        number = next(iter(sizes.values()), 0)
        labels = self._labels(number)
        if labels is not None:
            sizes["label"] = len(labels)
        if any(size != number for size in sizes.values()):
            counts = ", ".join(f"{count} in {self.files[kind]}" for kind, count in self._named(sizes).items())
            raise DataError(f"{annotation.where}: other numbers of objects: {counts}; each object needs one of each")
        boxes, masks, landmarks = parts["boxes"], parts["masks"], parts["landmarks"]
        for row in range(number):
            name = labels[row] if labels is not None else "" if has_labels else ONLY_CLASS
            instance = ShapeInstance(name, f"{annotation.where}, object {row}")
            if boxes is not None:
                x1, y1, x2, y2 = boxes[row].astype(np.float64).tolist()
                instance.box_xywh = [x1, y1, x2 - x1, y2 - y1]
            if masks is not None:
                instance.mask = mask_to_box_rle(np.asarray(masks[row] != 0))
            if landmarks is not None and landmarks.shape[1] == points:
                instance.keypoints = _keypoints(landmarks[row])
                if boxes is None and masks is None and (instance.keypoints[:, 2] > 0).any():
                    instance.box_xywh = landmark_box(instance.keypoints, instance.where, self._notes)
            annotation.instances.append(instance)

    def class_labels(self, annotation: ShapeAnnotation) -> None:
        """Set the class labels of the whole image: one, or one for each of several label fields.

        Raises:
            DataError: an array of another type or shape.
        """
        file = self._file("label")
        if file is None:
            return
        values = self._read(file)
        texts = [self._name(value, file) for value in values.ravel()[:100]]
        if values.ndim > 1 or values.size > len(texts):
            raise DataError(f"{file}: shape {list(values.shape)}, expected one label, or one for each label field")
        columns = [ONLY_COLUMN] if len(texts) == 1 else [f"{ONLY_COLUMN} {number}" for number in range(len(texts))]
        annotation.fields = {column: (text,) for column, text in zip(columns, texts, strict=True) if text}

    def _boxes(self) -> Array | None:
        """[N, 4] x1, y1, x2, y2."""
        array = self._coordinates("boxes")
        if array is None or (array.size and array.ndim == 2 and array.shape[1] == 4):
            return array
        if array.size and array.shape != (4,):
            raise DataError(
                f"{self.files['boxes']}: shape {list(array.shape)}, expected [number, 4]: x1, y1, x2, y2 in pixels "
                "(classes belong into the file of labels)"
            )
        return array.reshape(-1, 4)

    def _landmarks(self) -> Array | None:
        """[N, P, 2 or 3]."""
        array = self._coordinates("landmarks")
        if array is None:
            return None
        if array.size and (array.ndim not in (2, 3) or array.shape[-1] not in (2, 3)):
            raise DataError(
                f"{self.files['landmarks']}: shape {list(array.shape)}, expected [number, points, 2 or 3] or "
                "[points, 2 or 3]: x, y in pixels, and visibility"
            )
        return (array if array.ndim == 3 else array[None]) if array.size else np.zeros((0, 0, 2))

    def _masks(self) -> Array | None:
        """[N, H, W]."""
        if "masks" not in self.files:
            return None
        array = self._read(self.files["masks"])
        if not array.size:
            return np.zeros((0, 1, 1), np.bool_)
        if array.ndim not in (2, 3) or array.dtype.kind not in "biu":
            raise DataError(
                f"{self.files['masks']}: {array.dtype} {list(array.shape)}, expected [number, height, width] of "
                "booleans or integers, where 0 is the background"
            )
        return array if array.ndim == 3 else array[None]

    def _labels(self, number: int) -> list[str] | None:
        """The class of each object; one label without an axis is that of all ``number`` objects."""
        file = self._file("label")
        if file is None:
            return None
        values = self._read(file)
        if values.ndim > 1:
            raise DataError(f"{file}: shape {list(values.shape)}, expected one label for each object")
        names = [self._name(value, file) for value in values.ravel()]
        return names * number if values.ndim == 0 else names

    def _name(self, value: Any, file: str) -> str:
        """The class of a label value; "" for -1 and an empty text."""
        if isinstance(value, (str, bytes)):
            return (value.decode("utf-8", "replace") if isinstance(value, bytes) else value).strip()
        if not np.isfinite(value) or value != int(value) or value < -1:
            raise DataError(f"{file}: the label {value}; labels are whole numbers from 0 (-1 for none), or texts")
        if self._names and value >= len(self._names):
            raise DataError(
                f"{file}: the label {int(value)} has no name: the list of classes has {len(self._names)}; add a line"
            )
        return "" if value == -1 else self._names[int(value)] if self._names else str(int(value))

    def _coordinates(self, kind: str) -> Array | None:
        if kind not in self.files:
            return None
        array = self._read(self.files[kind])
        if array.dtype.kind not in _NUMBERS:
            raise DataError(f"{self.files[kind]}: {array.dtype} values, expected numbers; save them as float32")
        if array.dtype == np.float16 and (np.abs(array) > FLOAT16_EXACT).any():
            self._notes.add(ROUNDED, f"{self.files[kind]}: up to {np.nanmax(np.abs(array)):g}")
        return array

    def _file(self, kind: str) -> str | None:
        return self.files.get(kind) or self.files.get(f"{kind}s")

    def _named(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """``sizes`` by the keys of ``files``."""
        return {kind if kind in self.files else f"{kind}s": size for kind, size in sizes.items()}

    def _read(self, file: str) -> Array:
        return read_array(self._root / file, file)


def _keypoints(points: Array) -> npt.NDArray[np.float64]:
    """[P, 3] x, y, visibility; NaN and -1, -1 are not labelled."""
    keypoints = np.full((len(points), 3), 2.0)
    keypoints[:, : points.shape[1]] = points
    missing = np.isnan(keypoints).any(axis=1) | (keypoints[:, :2] == -1).all(axis=1) | (keypoints[:, 2] == 0)
    keypoints[missing] = 0.0
    return keypoints
