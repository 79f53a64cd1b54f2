"""Write what ``predict`` makes of the pixels of an image: drawings, crops of the objects, masks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.annotations.repair_log import RepairLog
from detseg.classes import ClassMap
from detseg.images import decode_image
from detseg.inference.chain import crop_boxes
from detseg.inference.output_paths import OutputPaths
from detseg.inference.prediction_stream import AnyPrediction, PredictedImage
from detseg.inference.predictor import Predictor
from detseg.masks import rle_crop
from detseg.reports.draw import draw_prediction
from detseg.reports.sheet import write_image
from detseg.runtime.files import WriteError, write_bytes
from detseg.runtime.reporter import Reporter
from detseg.short_text import as_unicode, printable_name
from detseg.structures import Prediction

KINDS = {
    "images": "drawing could not be written",
    "crops": "crops could not be written",
    "masks": "mask could not be written",
    "class-masks": "class mask could not be written",
}
"""Outputs that need pixels -> the note where one could not be written."""

MOST_VALUES = 2**16 - 1
"""Most objects or classes of a mask: a PNG has 16 bits."""


class ImageOutputs:
    """Writes the outputs of one image after the other; what cannot be written costs only itself.

    Args:
        kinds: of :data:`KINDS`.
        min_score: of the predictions that are drawn or cut out, or that are in a mask.

    Attributes:
        not_written: files that could not be written.
        no_space: why no more files are written: the disk is full; "" if it is not.
    """

    def __init__(
        self, paths: OutputPaths, kinds: Collection[str], predictor: Predictor, min_score: float, reporter: Reporter
    ) -> None:
        self._paths, self._predictor, self._min_score, self._reporter = paths, predictor, min_score, reporter
        self._kinds = [kind for kind in KINDS if kind in kinds]
        self.not_written, self.no_space = RepairLog(), ""

    def write(self, image: PredictedImage, results: Sequence[dict[str, Any]]) -> None:
        """Write the outputs of an image that has a prediction.

        Args:
            results: its results as dicts, in the order of the prediction.
        """
        prediction, pixels = image.prediction, None
        assert prediction is not None, "the caller has checked it"
        for kind in self._kinds if not self.no_space else ():
            try:
                if pixels is None and kind in ("images", "crops"):
                    value_range = self._predictor.preprocessing.value_range
                    pixels = decode_image(image.file.path, value_range=value_range)
                self._write(kind, image, prediction, results, pixels)
            except WriteError as error:  # the predictions are worth more than the images
                what = "images are drawn" if self._kinds == ["images"] else "images are written"
                self.no_space = f"{error.problem}; no more {what}"
                self._reporter.warning(f"warning: {self.no_space}")
                return
            except (ValueError, OSError) as error:
                self.not_written.add(KINDS[kind], printable_name(message_of(error, image.file.path, image.file.name)))

    def _write(
        self,
        kind: str,
        image: PredictedImage,
        prediction: AnyPrediction,
        results: Sequence[dict[str, Any]],
        pixels: Any,
    ) -> None:
        name, class_map = image.file.name, self._predictor.class_map
        if kind == "images":
            write_image(self._paths.drawing(name), self._drawn(pixels, prediction))
        elif not isinstance(prediction, Prediction):
            return
        elif kind == "crops":
            for row, (x1, y1, x2, y2) in enumerate(crop_boxes(prediction).tolist()):
                if prediction.scores[row] >= self._min_score:
                    write_image(self._paths.crop(name, row, results[row]), pixels[y1:y2, x1:x2])
        else:
            shown = prediction.above(self._min_score)
            mask = object_mask(shown) if kind == "masks" else class_mask(shown, class_map)
            encoded, png = cv2.imencode(".png", mask)
            assert encoded, "OpenCV always encodes one channel of 8 or 16 bits"
            write_bytes(self._paths.mask(kind, name), png.tobytes())

    def _drawn(self, pixels: Any, prediction: AnyPrediction) -> npt.NDArray[np.uint8]:
        predictor = self._predictor
        return draw_prediction(
            pixels,
            prediction,
            predictor.class_map,
            min_score=self._min_score,
            skeleton=predictor.keypoints.skeleton if predictor.keypoints else (),
            reporter=self._reporter,
        )


def object_mask(prediction: Prediction) -> npt.NDArray[np.uint16]:
    """uint16 [H, W]: 0 is the background, and the detection with the n-th highest score has the value n; where several
    overlap, the one with the highest score is seen."""
    return _painted(prediction, range(1, min(len(prediction), MOST_VALUES) + 1), np.uint16)


def class_mask(prediction: Prediction, class_map: ClassMap) -> npt.NDArray[Any]:
    """uint8 [H, W] (uint16 with more than 254 classes): 0 is the background, other values are labels 1..K; where
    several overlap, that of the detection with the highest score is seen."""
    return _painted(prediction, prediction.labels.tolist(), np.uint8 if len(class_map) < 255 else np.uint16)


def _painted(prediction: Prediction, values: Sequence[int], dtype: Any) -> npt.NDArray[Any]:
    mask = np.zeros(prediction.size_hw, dtype)
    for value, rle in reversed([*zip(values, prediction.rles or (), strict=False)]):
        crop, top, left = rle_crop(rle)
        part = mask[top : top + crop.shape[0], left : left + crop.shape[1]]
        part[crop != 0] = value
    return mask


def message_of(reason: Exception | str, path: Path, name: str) -> str:
    """``file: reason``, as valid Unicode."""
    text = as_unicode(str(reason) or type(reason).__name__)
    return text if as_unicode(path.name) in text else f"{name}: {text}"
