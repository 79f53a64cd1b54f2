"""What models of all kinds give for an image, as one :class:`Prediction` that an evaluator can trust."""

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
"""One image's output: network pixels, original pixels, or torchvision's dict of tensors."""


def as_prediction(
    output: Output,
    size_hw: tuple[int, int] | None,
    *,
    geometry: Callable[[], Geometry] | None,
    num_labels: int,
    where: str,
    masks: bool = True,
) -> Prediction:
    """A checked prediction in original upright pixels; the output itself is not changed.

    Args:
        output: a RawPrediction; a Prediction; or torchvision's dict with ``boxes`` float [M, 4] xyxy, ``labels`` int
            [M], ``scores`` float [M], and if present ``masks`` float or bool [M, 1, H, W] or [M, H, W] (1 above 0.5)
            and ``keypoints`` float [M, P, 3], in the pixels of the image that the data set gives.
        size_hw: height and width of the upright original, None if nobody knows.
        geometry: gives the geometry of the image; only a RawPrediction needs it.
        num_labels: K.
        where: beginning of the message, such as "image 17".
        masks: whether masks are wanted at all; turning them into run lengths costs time.

    Raises:
        DataError: lengths that differ, numbers that are not finite, a label outside 1..K, a mask of another size.
    """
    if isinstance(output, RawPrediction):
        if geometry is None:
            raise DataError(f"{where}: the output is in network pixels; give the evaluator a geometry to undo them")
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
            f"the ground truth {size_hw[0]} x {size_hw[1]}; predict in the original, upright size"
        )
    return prediction


def to_numpy(value: Any) -> npt.NDArray[Any]:
    """Anything array-like, tensors of any device and type included, as a numpy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float()  # numpy has no bfloat16
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
        raise DataError(f"{where}: the output's parts differ in length: {lengths}; row i must be one object in each")
    check_finite(prediction, where)
    outside = prediction.labels[(prediction.labels < 1) | (prediction.labels > num_labels)]
    if len(outside):
        raise DataError(
            f"{where}: label {int(outside[0])} is predicted, labels are 1..{num_labels}; the model has other classes "
            "than the data"
        )
