"""Which starting weights a keypoint predictor may take: those of the same points, in the same order."""

from __future__ import annotations

from torch import Tensor

from detseg.keypoints import COCO_NAMES
from detseg.models.base import PartedModel
from detseg.models.weights.state_files import read_description

PREDICTOR = "roi_heads.keypoint_predictor."


def without_other_points(state: dict[str, Tensor], model: PartedModel, weights: str) -> dict[str, Tensor]:
    """``state`` without its keypoint predictor if that is known to find other points than ``model``.

    As many points are not the same points: a left ear learns slowly from the weights of a right knee.

    Args:
        weights: where ``state`` comes from: "coco" has COCO's 17, a checkpoint of this project says its own; of other
            files nobody knows, so the shape alone decides later.
    """
    schema = model.description.keypoints
    if schema is None or not any(name.startswith(PREDICTOR) for name in state):
        return state
    theirs: tuple[str, ...] | None = COCO_NAMES
    if weights != "coco":
        saved = read_description(weights)
        theirs = None if saved is None or saved.keypoints is None else saved.keypoints.names
    if theirs is None or [name.lower() for name in theirs] == [name.lower() for name in schema.names]:
        return state
    return {name: tensor for name, tensor in state.items() if not name.startswith(PREDICTOR)}
