"""Name the losses of a model in training mode, from its kind alone."""

from __future__ import annotations

from collections.abc import Sequence

from detseg.classes import LabelField

ONE_STAGE = ("loss_classifier", "loss_box_reg", "loss_centerness")
"""Those of FCOS; RetinaNet and SSD have the first two."""


def loss_names(
    task: str, family: str, label_fields: Sequence[LabelField] = (), *, rpn_frozen: bool = False
) -> tuple[str, ...]:
    """Return the names of the losses that a model returns in training mode.

    Args:
        family: of its architecture.
        label_fields: of a classifier with several labels per image.
        rpn_frozen: a frozen RPN has no losses.
    """
    if task == "classify":
        return tuple(f"loss_{field.name}" for field in label_fields) or ("loss_classifier",)
    if family != "rcnn":
        return ONE_STAGE if family == "fcos" else ONE_STAGE[:2]
    names = ["loss_classifier", "loss_box_reg"]
    names += ["loss_mask"] * (task == "segment") + ["loss_keypoint"] * (task == "keypoints")
    return (*names, *(() if rpn_frozen else ("loss_objectness", "loss_rpn_box_reg")))
