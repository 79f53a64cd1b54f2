"""What torchvision's detectors ask for and give, in this project's terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from detseg.models.features import Image
from detseg.models.padding import SizeHW, by_padded_size, padded_hw
from detseg.structures import RawPrediction


def frame_of(sizes_hw: Sequence[SizeHW]) -> ImageList:
    """The padded images as RPN and anchors ask for them: only to read their size, so a tensor without data will do."""
    sizes = list(sizes_hw)
    return ImageList(torch.empty((len(sizes), 3, *padded_hw(sizes)), device="meta"), sizes)


def padded_alone(
    images: Sequence[Image], predict: Callable[[Sequence[Image]], list[RawPrediction]]
) -> list[RawPrediction]:
    """Predictions of images of any sizes, or of their features: each is padded alone, and only those that are then of
    equal size share a batch of ``predict``. No image changes the prediction of another."""
    predictions: dict[int, RawPrediction] = {}
    for group in by_padded_size(images):
        predictions |= dict(zip(group, predict([images[index] for index in group]), strict=True))
    return [predictions[index] for index in range(len(images))]


def raw_prediction(detection: dict[str, Tensor]) -> RawPrediction:
    """The prediction for one image from torchvision's dict of it."""
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
    """float32 [M, P, 3]: x, y, score.

    torchvision's score is the highest logit of the point's heatmap. Its sigmoid lies in [0, 1] in the same order; it
    ranks points but is no probability, because the loss says where a point is and not whether it is there.
    """
    scores = detection["keypoints_scores"].float().sigmoid()
    points = torch.cat([detection["keypoints"][..., :2].float(), scores[..., None]], dim=2)
    found: npt.NDArray[np.float32] = points.cpu().numpy()
    return found
