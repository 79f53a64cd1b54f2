"""From a name to a description, and from a description to a model with random weights. Nothing is downloaded."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.poolers import LevelMapper

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models.architectures import MODELS, Architecture
from detseg.models.bodies import BODIES, build_backbone, norm_layer
from detseg.models.classifier import Classifier
from detseg.models.description import ModelDescription, Norm
from detseg.models.detector import Detector
from detseg.models.state_files import read_description, read_state_dict
from detseg.preprocess import Preprocessing

__all__ = ["MODELS", "ModelDescription", "build_model", "describe"]

CLASSIFIER_SIZE = 224
SMALLEST_CLASSIFIER_SIZE = 33
"""From 33 pixels on the last map has more than one pixel, which BatchNorm needs for a batch of one image."""


def describe(
    arch: str,
    class_map: ClassMap,
    *,
    weights: str = "coco",
    image_size: int | None = None,
    rois_per_image: int = 128,
    detections_per_image: int = 100,
    anchor_sizes: tuple[tuple[int, ...], ...] | None = None,
) -> ModelDescription:
    """The description of a new model that will be filled with ``weights``.

    Args:
        arch: a name of ``MODELS``.
        weights: "coco", "imagenet", "none" or a file; decides the norm layers, and, when it is a checkpoint of this
            project with the same ``arch``, the anchors and the default of ``image_size``.
        image_size: length of the shorter side in pixels (of the square crop for classifiers); None for what
            torchvision trains this architecture with: 800 (at most 1333), 320 (at most 640), or 224.
        anchor_sizes: anchor sides in pixels for each FPN map; None for the architecture's own.

    Raises:
        DataError: the architecture is not known, or has no such weights or size.
        OSError: the weights file cannot be opened.
    """
    architecture = architecture_of(arch)
    if weights == "coco" and architecture.coco is None:
        raise DataError(no_coco_weights(arch))
    norm, norm_eps = _norm(architecture, weights)
    description = ModelDescription(
        arch=arch,
        task=architecture.task,
        class_map=class_map,
        preprocessing=_preprocessing(architecture, image_size),
        norm=norm,
        norm_eps=norm_eps,
        anchor_sizes=anchor_sizes,
        rois_per_image=rois_per_image,
        rpn_pre_nms_top_n=architecture.rpn_pre_nms_top_n,
        rpn_post_nms_top_n=_room_for(detections_per_image, architecture.rpn_post_nms_top_n),
        rpn_score_threshold=architecture.rpn_score_threshold,
        detections_per_image=detections_per_image,
    )
    saved = None if weights in ("coco", "imagenet", "none") else read_description(weights)
    if saved is None:
        return description
    description = replace(description, norm=saved.norm, norm_eps=saved.norm_eps)
    if saved.arch != arch:
        return description
    return replace(
        description,
        anchor_sizes=anchor_sizes or saved.anchor_sizes,
        anchor_ratios=saved.anchor_ratios,
        preprocessing=saved.preprocessing if image_size is None else description.preprocessing,
    )


def build_model(description: ModelDescription) -> Detector | Classifier:
    """The model that ``description`` tells, with random weights, in training mode, nothing frozen.

    Raises:
        DataError: the architecture is not known, or its number of FPN maps is not that of the anchor sizes.
    """
    architecture = architecture_of(description.arch)
    body = BODIES[architecture.body]
    if description.task == "classify":
        norm = norm_layer(description.norm, description.norm_eps)
        network = body.build(weights=None, num_classes=len(description.class_map), norm_layer=norm)
        return Classifier(network, body, description)
    rcnn = _rcnn(architecture, description)
    _fix_scales(rcnn.roi_heads, body.strides)
    return Detector(rcnn, body, description)


def architecture_of(arch: str) -> Architecture:
    """The architecture of a name; DataError with all names if there is none."""
    if arch not in MODELS:
        raise DataError(f"model {arch!r} is not known; known are {', '.join(MODELS)}")
    return MODELS[arch]


def no_coco_weights(arch: str) -> str:
    """What to say when COCO weights are asked for and do not exist."""
    task = MODELS[arch].task
    others = [name for name, other in MODELS.items() if other.coco is not None and other.task == task]
    kind = "the whole network but its last layer" if task == "classify" else "the body only"
    instead = f"; of its kind {', '.join(others)} have them" if others else ""
    return f"{arch} has no published COCO weights{instead}. It can start from imagenet ({kind}), none, or a file"


def _rcnn(architecture: Architecture, description: ModelDescription) -> Any:
    norm = norm_layer(description.norm, description.norm_eps)
    backbone = build_backbone(
        BODIES[architecture.body],
        norm,
        channels=architecture.neck_channels,
        fpn_norm=norm if architecture.improved else None,
    )
    anchors = _anchors(architecture, description)
    settings = {
        "backbone": backbone,
        "num_classes": description.class_map.num_classes,
        "rpn_anchor_generator": anchors,
        "rpn_pre_nms_top_n_train": description.rpn_pre_nms_top_n[0],
        "rpn_pre_nms_top_n_test": description.rpn_pre_nms_top_n[1],
        "rpn_post_nms_top_n_train": description.rpn_post_nms_top_n[0],
        "rpn_post_nms_top_n_test": description.rpn_post_nms_top_n[1],
        "rpn_batch_size_per_image": description.rpn_batch_size_per_image,
        "rpn_score_thresh": description.rpn_score_threshold,
        "box_batch_size_per_image": description.rois_per_image,
        "box_score_thresh": description.score_threshold,
        "box_nms_thresh": description.nms_threshold,
        "box_detections_per_img": description.detections_per_image,
    }
    if architecture.improved:
        channels, layers = backbone.out_channels, [256] * 4
        settings["rpn_head"] = RPNHead(channels, anchors.num_anchors_per_location()[0], conv_depth=2)
        settings["box_head"] = FastRCNNConvFCHead((channels, 7, 7), layers, [1024], norm_layer=norm)
        if description.task == "segment":
            settings["mask_head"] = MaskRCNNHeads(channels, layers, 1, norm_layer=norm)
    if architecture.slim:
        settings |= _slim_heads(architecture, description) | {"num_classes": None}
    return MaskRCNN(**settings) if description.task == "segment" else FasterRCNN(**settings)


def _slim_heads(architecture: Architecture, description: ModelDescription) -> dict[str, Any]:
    """The published heads with fewer channels."""
    neck, head = architecture.neck_channels, architecture.head_channels
    num_classes = description.class_map.num_classes
    heads = {"box_head": TwoMLPHead(neck * 7 * 7, head), "box_predictor": FastRCNNPredictor(head, num_classes)}
    if description.task == "segment":
        heads["mask_head"] = MaskRCNNHeads(neck, [neck] * 4, 1)
        heads["mask_predictor"] = MaskRCNNPredictor(neck, neck, num_classes)
    return heads


def _anchors(architecture: Architecture, description: ModelDescription) -> AnchorGenerator:
    sizes = description.anchor_sizes or architecture.anchor_sizes
    if len(sizes) != len(architecture.anchor_sizes) or len({len(level) for level in sizes}) != 1:
        raise DataError(
            f"{description.arch}: anchor sizes {sizes} do not fit its {len(architecture.anchor_sizes)} FPN maps; "
            f"give each the same number of sizes, such as {architecture.anchor_sizes}"
        )
    return AnchorGenerator(sizes, (description.anchor_ratios,) * len(sizes))


def _fix_scales(roi_heads: Any, strides: tuple[int, ...]) -> None:
    """Tell the RoI poolers the strides of the FPN maps.

    Left alone, torchvision's pooler guesses them from the first images that it sees and keeps the guess for ever, and
    for images much smaller than their padding the guess is wrong: one 20 x 20 image spoils all later ones.
    """
    levels = [int(math.log2(stride)) for stride in strides]
    for pooler in (roi_heads.box_roi_pool, roi_heads.mask_roi_pool):
        if pooler is not None:
            pooler.scales = [1 / stride for stride in strides]
            pooler.map_levels = LevelMapper(levels[0], levels[-1])


def _preprocessing(architecture: Architecture, image_size: int | None) -> Preprocessing:
    if architecture.task == "classify":
        crop = CLASSIFIER_SIZE if image_size is None else image_size
        if crop < SMALLEST_CLASSIFIER_SIZE:
            raise DataError(
                f"image size {crop} is too small for a network of stride 32; give at least "
                f"{SMALLEST_CLASSIFIER_SIZE} (smaller pictures are enlarged)"
            )
        return Preprocessing(min_size=round(crop * 256 / 224), max_size=0, crop=crop)
    smallest, largest = architecture.image_size
    if image_size is not None and image_size != smallest:
        smallest, largest = image_size, round(image_size * 1333 / 800)
    return Preprocessing(min_size=smallest, max_size=largest)


def _room_for(detections: int, proposals: tuple[int, int]) -> tuple[int, int]:
    """At least three proposals in eval mode for each detection that may be wanted."""
    return proposals[0], max(proposals[1], 3 * detections)


def _norm(architecture: Architecture, weights: str) -> tuple[Norm, float]:
    """The norm layers that the weights were trained with.

    Detectors with pretrained weights freeze them, as torchvision does, because a batch of two images is too small to
    learn statistics from; its "v2" models have BatchNorm that learns. So have classifiers, whose batches are larger.
    """
    body = BODIES[architecture.body]
    if architecture.task == "classify":
        return "batch", body.norm_eps
    if weights == "none" or architecture.improved:
        return "batch", 1e-5
    if weights == "coco":
        return "frozen", architecture.coco_eps
    if weights == "imagenet":
        return "frozen", body.norm_eps
    return _norm_of_file(architecture, read_state_dict(weights))


def _norm_of_file(architecture: Architecture, state: dict[str, Tensor]) -> tuple[Norm, float]:
    """Norm layers that a state dict without description was most likely trained with, as torchvision builds them."""
    if not any(name.startswith("backbone.") for name in state):
        return "frozen", BODIES[architecture.body].norm_eps  # a classification network
    if any(name.endswith("num_batches_tracked") for name in state):
        return "batch", 1e-5  # built without pretrained weights: BatchNorm that learned
    return "frozen", architecture.coco_eps
