"""Convert between the inputs and outputs of torchvision's detectors and this project's types."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from detseg.models.frozen_features import Image
from detseg.models.padding import SizeHW, by_padded_size, padded_hw
from detseg.structures import RawPrediction


def image_list_of(sizes_hw: Sequence[SizeHW]) -> ImageList:
    """Return an ImageList for RPN and anchor generator, which only read the padded size: its tensor has no data."""
    sizes = list(sizes_hw)
    return ImageList(torch.empty((len(sizes), 3, *padded_hw(sizes)), device="meta"), sizes)


def predict_by_padded_size(
    images: Sequence[Image], predict: Callable[[Sequence[Image]], list[RawPrediction]]
) -> list[RawPrediction]:
    """Predict for images of any sizes, or their features: each is padded alone, and only images of equal padded size
    share a batch of ``predict``. No image changes the prediction of another."""
    predictions: dict[int, RawPrediction] = {}
    for group in by_padded_size(images):
        predictions |= dict(zip(group, predict([images[index] for index in group]), strict=True))
    return [predictions[index] for index in range(len(images))]


def raw_prediction(detection: dict[str, Tensor]) -> RawPrediction:
    """Convert torchvision's prediction dict for one image."""
    masks = detection.get("masks")
    boxes, scores = detection["boxes"].float().cpu().numpy(), detection["scores"].float().cpu().numpy()
    return RawPrediction(
        boxes=boxes,
        labels=detection["labels"].cpu().numpy(),
        scores=scores,
        mask_probs=None if masks is None else masks[:, 0].float().cpu().numpy(),
        keypoints=None if "keypoints" not in detection else _keypoints(detection),
    )


def _keypoints(detection: dict[str, Tensor]) -> npt.NDArray[np.float32]:
    """Return float32 [M, P, 3]: x, y, score.

    torchvision's score is the highest logit of the point's heatmap. Its sigmoid is in [0, 1] with the same order; it
    ranks points but is not a probability, because the loss is about the position of a point, not its presence.
    """
    scores = detection["keypoints_scores"].float().sigmoid()
    points = torch.cat([detection["keypoints"][..., :2].float(), scores[..., None]], dim=2)
    keypoints: npt.NDArray[np.float32] = points.cpu().numpy()
    return keypoints
