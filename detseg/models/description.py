"""Describe a model completely except for its weights: one value, saved as JSON in the checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import msgspec

from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema
from detseg.preprocess import Preprocessing
from detseg.tasks import Task

Norm = Literal["frozen", "batch"]


@dataclass(frozen=True)
class ModelDescription:
    """Everything about a model except its weights. The same state dict with a different ``norm`` or ``norm_eps`` is a
    different function.

    Attributes:
        arch: a key of ``MODELS``, or a family and a timm backbone.
        task: what the model predicts: boxes, boxes and masks, boxes and keypoints, or a class.
        class_map: the K classes.
        preprocessing: size, crop and normalisation of the input.
        norm: "frozen" (FrozenBatchNorm2d: constants, suited to batches of two) or "batch" (BatchNorm2d: trainable).
        norm_eps: added to the variance in every norm layer; 0.0 for torchvision's ResNet-50 COCO_V1 weights.
        anchor_sizes: anchor sides in pixels of each FPN level, e.g. ``((16,), (32,), ...)``; None for the
            architecture's default.
        anchor_ratios: height / width of the anchors.
        rois_per_image: boxes sampled per image for the loss of the heads. torchvision samples 512; 128 halves the
            time of a training step on a CPU (Fast R-CNN, Girshick 2015, sampled 64), and small data sets gain nothing
            from more.
        mask_rois_per_image: maximum number of these boxes in the mask loss; None for all that match an object, as in
            torchvision. Several boxes of one object have nearly the same mask target.
        rpn_batch_size_per_image: anchors sampled per image for the loss of the RPN. torchvision's 256: they cost
            nothing, because the RPN computes all anchors anyway.
        rpn_pre_nms_top_n: proposals of each level before NMS, in training and in eval mode.
        rpn_post_nms_top_n: proposals of an image after NMS, in training and in eval mode.
        rpn_score_threshold: objectness below which a proposal is dropped.
        score_threshold: score below which a detection is dropped. Low, because AP uses the whole PR curve.
        nms_threshold: IoU above which the lower of two detections of one class is dropped.
        detections_per_image: maximum number of detections per image.
        topk_candidates: boxes before NMS in a one-stage detector: per map, in SSD per class.
        reduced_tail: MobileNetV3 with half the channels in its last stage (Howard et al. 2019, table 6), as torchvision
            builds SSDLite for its COCO weights and from scratch, but not for ImageNet weights.
        keypoints: schema of the P keypoints of a keypoint model; None for all other models.
        label_fields: for a classifier that predicts several classes per image, one per field; ``class_map`` is then
            ``joined(label_fields)``. Empty: one class, from ``class_map``.
    """

    arch: str
    task: Task
    class_map: ClassMap
    preprocessing: Preprocessing
    norm: Norm
    norm_eps: float
    anchor_sizes: tuple[tuple[int, ...], ...] | None = None
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rois_per_image: int = 128
    mask_rois_per_image: int | None = None
    rpn_batch_size_per_image: int = 256
    rpn_pre_nms_top_n: tuple[int, int] = (2000, 1000)
    rpn_post_nms_top_n: tuple[int, int] = (2000, 1000)
    rpn_score_threshold: float = 0.0
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_image: int = 100
    topk_candidates: int = 1000
    reduced_tail: bool = False
    keypoints: KeypointSchema | None = None
    label_fields: tuple[LabelField, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.class_map):
            raise DataError(f"{self.arch}: no class to train on; the data set needs at least one")
        if self.label_fields and (self.task != "classify" or self.class_map != joined(self.label_fields)):
            names = ", ".join(field.name for field in self.label_fields)
            raise DataError(
                f"{self.arch}: label fields {names} are for classifiers, whose class map is joined(label_fields)"
            )
        if (self.task == "keypoints") != (self.keypoints is not None and len(self.keypoints.names) > 0):
            raise DataError(
                f"{self.arch}: the task is {self.task}, the keypoints are {self.keypoints and self.keypoints.names}; a "
                "keypoint model needs their schema (keypoints=table.keypoint_schema), no other model accepts one"
            )
        for name in ("rois_per_image", "rpn_batch_size_per_image", "detections_per_image", "topk_candidates"):
            if getattr(self, name) < 1:
                raise DataError(f"{self.arch}: {name} is {getattr(self, name)}; it must be at least 1")
        if self.mask_rois_per_image is not None and (self.task != "segment" or self.mask_rois_per_image < 1):
            raise DataError(
                f"{self.arch}: mask_rois_per_image is {self.mask_rois_per_image}; it must be at least 1, for a model "
                "with masks"
            )
        if self.norm not in ("frozen", "batch") or self.norm_eps < 0:
            raise DataError(
                f"{self.arch}: norm {self.norm!r} with eps {self.norm_eps} is not supported; use frozen or batch, "
                "and eps >= 0"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable dict; the inverse of :meth:`from_dict`."""
        return {
            **asdict(self),
            "class_map": self.class_map.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            "label_fields": [field.to_dict() for field in self.label_fields],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ModelDescription:
        """Return the description from a dict that was read from JSON (where tuples are lists).

        Raises:
            DataError: a key is unknown or missing: the dict is from another version, or is not a description.
        """
        field_names = {field.name for field in fields(cls)}
        required = {"arch", "task", "class_map", "preprocessing", "norm", "norm_eps"}
        wrong_keys = sorted((set(value) - field_names) | (required - set(value)))
        if wrong_keys:
            raise DataError(
                f"model description: key {wrong_keys[0]!r} is unknown or missing; it is from another version of detseg"
            )
        _schema(value.get("keypoints"))  # its errors are more specific than those of the type check below
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise DataError(f"model description: {error}; it is from another version of detseg") from error


def _schema(value: Any) -> KeypointSchema | None:
    try:
        return None if value is None else KeypointSchema(**{key: _tuples(item) for key, item in value.items()})
    except (AttributeError, TypeError) as error:
        raise DataError(
            f"model description: keypoints {value}: {error}; it is from another version of detseg"
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
