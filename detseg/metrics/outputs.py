"""Convert the outputs of different models to a checked :class:`Prediction` for an evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.postprocess import check_finite, finish, mask_to_box_rle
from detseg.preprocess import Geometry
from detseg.structures import Prediction, RawPrediction

Output = RawPrediction | Prediction | Mapping[str, Any]
"""Output of a model for one image: in network pixels, in original pixels, or torchvision's dict of tensors."""


def as_prediction(
    output: Output,
    size_hw: tuple[int, int] | None,
    *,
    geometry: Callable[[], Geometry] | None,
    num_labels: int,
    where: str,
    masks: bool = True,
) -> Prediction:
    """Convert ``output`` to a checked prediction in original upright pixels; ``output`` is not changed.

    Args:
        output: a RawPrediction; a Prediction; or torchvision's dict with ``boxes`` float [M, 4] xyxy, ``labels`` int
            [M], ``scores`` float [M], and if present ``masks`` float or bool [M, 1, H, W] or [M, H, W] (1 above 0.5)
            and ``keypoints`` float [M, P, 3], in the pixels of the image that the dataset returns.
        size_hw: height and width of the upright original, None if unknown.
        geometry: returns the geometry of the image; only needed for a RawPrediction.
        num_labels: K.
        where: start of the error message, such as "image 17".
        masks: whether masks are needed; converting them to RLE takes time.

    Raises:
        DataError: different lengths, numbers that are not finite, a label outside 1..K, a mask of a different size.
    """
    if isinstance(output, RawPrediction):
        if geometry is None:
            raise DataError(f"{where}: the output is in network pixels; pass geometry to the evaluator")
        _check(output, num_labels, where)
        prediction = finish(output, geometry())
    elif isinstance(output, Prediction):
        _check(output, num_labels, where)
        prediction = output
    else:
        prediction = _from_dict(output, size_hw, num_labels, where, masks)
    if size_hw is not None and prediction.size_hw != tuple(size_hw):
        raise DataError(
            f"{where}: the prediction is {prediction.size_hw[0]} x {prediction.size_hw[1]} pixels (height x width), "
            f"but the ground truth is {size_hw[0]} x {size_hw[1]}; predict in the original, upright size"
        )
    return prediction


def to_numpy(value: Any) -> npt.NDArray[Any]:
    """Convert anything array-like, including tensors of any device and dtype, to a numpy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float()  # numpy does not support bfloat16
    return np.asarray(value)


def _from_dict(
    output: Mapping[str, Any], size_hw: tuple[int, int] | None, num_labels: int, where: str, masks: bool
) -> Prediction:
    missing = [key for key in ("boxes", "labels", "scores") if key not in output]
    if missing:
        raise DataError(f"{where}: the output has no {', '.join(missing)}; it has the keys {', '.join(output)}")
    scores = to_numpy(output["scores"]).astype(np.float32).reshape(-1)
    keypoints = to_numpy(output["keypoints"]) if "keypoints" in output else None
    rles = None
    if masks and "masks" in output:
        pixels = to_numpy(output["masks"])
        pixels = pixels.reshape(pixels.shape[0], *pixels.shape[-2:])  # [M, 1, H, W] or [M, H, W]
        size_hw = size_hw or (pixels.shape[1], pixels.shape[2])
        rles = [mask_to_box_rle(mask > 0.5) for mask in pixels]
    prediction = Prediction(
        tuple(rles[0]["size"]) if rles else size_hw or (0, 0),
        to_numpy(output["boxes"]).astype(np.float32).reshape(-1, 4),
        to_numpy(output["labels"]).astype(np.int64).reshape(-1),
        scores,
        rles,
        None if keypoints is None else keypoints.astype(np.float32).reshape(len(scores), -1, 3),
    )
    _check(prediction, num_labels, where)
    return prediction


def _check(prediction: RawPrediction | Prediction, num_labels: int, where: str) -> None:
    lengths = {
        name: len(values)
        for name in ("boxes", "labels", "scores", "mask_probs", "rles", "keypoints")
        if (values := getattr(prediction, name, None)) is not None
    }
    if len(set(lengths.values())) > 1:
        raise DataError(f"{where}: the output's fields differ in length: {lengths}; row i of each must be one object")
    check_finite(prediction, where)
    outside = prediction.labels[(prediction.labels < 1) | (prediction.labels > num_labels)]
    if len(outside):
        raise DataError(
            f"{where}: label {int(outside[0])} is predicted, but labels are 1..{num_labels}; the model and the data "
            "have different classes"
        )
