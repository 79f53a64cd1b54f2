"""From a name to a description, and from a description to a model with random weights. Nothing is downloaded."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.poolers import LevelMapper

from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema
from detseg.models.architectures import MODELS, Architecture, octaves
from detseg.models.backbones import build_backbone, norm_layer
from detseg.models.classifier import Classifier
from detseg.models.description import ModelDescription, Norm
from detseg.models.detector import Detector
from detseg.models.one_stage import OneStageDetector
from detseg.models.one_stage_build import build_one_stage, is_reduced_tail
from detseg.models.ops.fast_ops import use_fast_ops
from detseg.models.ops.roi_align import GatheringRoIAlign
from detseg.models.own_classifier import OWN
from detseg.models.timm_backbone import FAMILIES, PREFIX, backbone_spec, timm_architecture
from detseg.models.weights.state_files import read_description, read_state_dict
from detseg.preprocess import Preprocessing

__all__ = ["MODELS", "Model", "ModelDescription", "build_model", "describe"]

Model = Detector | OneStageDetector | Classifier

KEYPOINT_LAYERS = 8
"""Convolutions of the published keypoint head: together they see all of a box."""
SMALLEST_CLASSIFIER_SIZE = 33
"""From 33 pixels on the last map has more than one pixel, which BatchNorm needs for a batch of one image."""


def describe(
    arch: str,
    class_map: ClassMap,
    *,
    weights: str = "coco",
    image_size: int | None = None,
    rois_per_image: int = 128,
    mask_rois_per_image: int | None = None,
    detections_per_image: int = 100,
    anchor_sizes: tuple[tuple[int, ...], ...] | None = None,
    keypoints: KeypointSchema | None = None,
    label_fields: tuple[LabelField, ...] = (),
) -> ModelDescription:
    """The description of a new model that will be filled with ``weights``.

    Args:
        arch: a name of ``MODELS``.
        weights: "coco", "imagenet", "bundled", "none" or a file; decides the norm layers, and, when it is a checkpoint
            of this project, the anchors (for a model with the same RPN) and the default of ``image_size`` (for the
            same ``arch``).
        image_size: length of the shorter side in pixels (of the square crop for classifiers); None for what
            torchvision trains this architecture with: 800 (at most 1333), 320 (at most 640; SSDLite: of the square
            that an image is stretched to), or 224.
        rois_per_image: has no meaning for one-stage detectors.
        mask_rois_per_image: as in ModelDescription; for models with masks.
        anchor_sizes: anchor sides in pixels for each FPN map; None for the architecture's own. For RetinaNet a single
            side stands for the three of its octave.
        label_fields: of a classifier that gives a class for each of them; ``class_map`` is then their ``joined`` one.
        keypoints: the points that a model for keypoints finds, such as ``table.keypoint_schema``; other models take
            none.

    Raises:
        DataError: the architecture is not known, or has no such weights or size, or keypoints are missing or too many.
        OSError: the weights file cannot be opened.
    """
    architecture = architecture_of(arch)
    if weights == "coco" and architecture.coco is None:
        raise DataError(no_coco_weights(arch))
    if anchor_sizes is not None:
        if not architecture.anchor_sizes:
            raise DataError(f"{arch}: it has no anchor sizes to choose, but {anchor_sizes} are given; leave them out")
        anchor_sizes = octaves(anchor_sizes) if architecture.family == "retinanet" else anchor_sizes
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
        mask_rois_per_image=mask_rois_per_image,
        rpn_pre_nms_top_n=architecture.rpn_pre_nms_top_n,
        rpn_post_nms_top_n=_room_for(detections_per_image, architecture.rpn_post_nms_top_n),
        rpn_score_threshold=architecture.rpn_score_threshold,
        score_threshold=architecture.score_threshold,
        nms_threshold=architecture.nms_threshold,
        detections_per_image=detections_per_image,
        topk_candidates=max(architecture.topk_candidates, 3 * detections_per_image),
        keypoints=keypoints,
        reduced_tail=architecture.family == "ssdlite" and _has_reduced_tail(weights),
        label_fields=label_fields,
    )
    saved = None if weights in ("coco", "imagenet", "none") else read_description(weights)
    if saved is None:
        return description
    description = replace(description, norm=saved.norm, norm_eps=saved.norm_eps)
    if saved.arch == arch or _takes_rpn(architecture, MODELS.get(saved.arch)):
        description = replace(
            description, anchor_sizes=anchor_sizes or saved.anchor_sizes, anchor_ratios=saved.anchor_ratios
        )
    if saved.arch != arch:
        return description
    return replace(description, preprocessing=saved.preprocessing if image_size is None else description.preprocessing)


def _takes_rpn(architecture: Architecture, saved: Architecture | None) -> bool:
    """Whether the RPN (or the one-stage head) of a saved architecture fits, and means its anchors."""
    same = ("family", "backbone", "neck_channels", "improved")
    return saved is not None and all(getattr(saved, name) == getattr(architecture, name) for name in same)


def build_model(description: ModelDescription) -> Model:
    """The model that ``description`` tells, with random weights, in training mode, nothing frozen.

    Raises:
        DataError: the architecture is not known, or its number of FPN maps is not that of the anchor sizes.
    """
    architecture = architecture_of(description.arch)
    spec = backbone_spec(architecture)
    if description.task == "classify":
        norm = norm_layer(description.norm, description.norm_eps)
        network = spec.build(weights=None, num_classes=len(description.class_map), norm_layer=norm)
        return Classifier(network, spec, description)
    if architecture.family != "rcnn":
        return build_one_stage(architecture, description)
    rcnn = _rcnn(architecture, description)
    _fix_scales(rcnn.roi_heads, spec.strides)
    use_fast_ops(rcnn, description.mask_rois_per_image)
    return Detector(rcnn, spec, description)


def torchvision_rcnn(description: ModelDescription) -> Any:
    """torchvision's own ``FasterRCNN``, ``MaskRCNN`` or ``KeypointRCNN`` of a description; nothing is changed in it."""
    return _rcnn(architecture_of(description.arch), description)


def architecture_of(arch: str) -> Architecture:
    """The architecture of a name; DataError with all names if there is none, or none with this timm backbone."""
    architecture = MODELS.get(arch) or timm_architecture(arch)
    if architecture is not None:
        return architecture
    if arch == OWN:
        raise DataError("a module of your own is built by you: load(path, build=...), see OwnClassifier.from_saved")
    if arch in FAMILIES:
        raise DataError(f"model {arch!r} needs a backbone, such as --backbone {PREFIX}convnext_atto")
    raise DataError(
        f"model {arch!r} is not known; known are {', '.join(MODELS)}, and "
        f"{', '.join(FAMILIES)} with --backbone {PREFIX}NAME"
    )


def no_coco_weights(arch: str) -> str:
    """What to say when COCO weights are asked for and do not exist."""
    task = architecture_of(arch).task
    others = [name for name, other in MODELS.items() if other.coco is not None and other.task == task]
    kind = "the whole network but its last layer" if task == "classify" else "the backbone only"
    instead = f"; of its kind {', '.join(others)} have them" if others else ""
    return f"{arch} has no published COCO weights{instead}. It can start from imagenet ({kind}), none, or a file"


def _rcnn(architecture: Architecture, description: ModelDescription) -> Any:
    norm = norm_layer(description.norm, description.norm_eps)
    backbone = build_backbone(
        backbone_spec(architecture),
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
    if description.keypoints is not None:
        points = None if architecture.slim else len(description.keypoints.names)
        return KeypointRCNN(**settings, num_keypoints=points)
    return MaskRCNN(**settings) if description.task == "segment" else FasterRCNN(**settings)


def _slim_heads(architecture: Architecture, description: ModelDescription) -> dict[str, Any]:
    """The published heads with fewer channels."""
    neck, head = architecture.neck_channels, architecture.head_channels
    num_classes = description.class_map.num_classes
    heads = {"box_head": TwoMLPHead(neck * 7 * 7, head), "box_predictor": FastRCNNPredictor(head, num_classes)}
    if description.task == "segment":
        heads["mask_head"] = MaskRCNNHeads(neck, [neck] * 4, 1)
        heads["mask_predictor"] = MaskRCNNPredictor(neck, neck, num_classes)
    if description.keypoints is not None:
        heads["keypoint_head"] = KeypointRCNNHeads(neck, [neck] * KEYPOINT_LAYERS)
        heads["keypoint_predictor"] = KeypointRCNNPredictor(neck, len(description.keypoints.names))
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
    """Give the RoI poolers a fast backward, and tell them the strides of the FPN maps.

    Left alone, torchvision's pooler guesses them from the first images that it sees and keeps the guess for ever, and
    for images much smaller than their padding the guess is wrong: one 20 x 20 image spoils all later ones.
    """
    levels = [int(math.log2(stride)) for stride in strides]
    for name in ("box_roi_pool", "mask_roi_pool", "keypoint_roi_pool"):
        if getattr(roi_heads, name) is not None:
            pooler = GatheringRoIAlign.like(getattr(roi_heads, name))
            pooler.scales = [1 / stride for stride in strides]
            pooler.map_levels = LevelMapper(levels[0], levels[-1])
            setattr(roi_heads, name, pooler)


def _preprocessing(architecture: Architecture, image_size: int | None) -> Preprocessing:
    if architecture.task == "classify":
        spec = backbone_spec(architecture)
        crop = spec.crop if image_size is None else image_size
        if spec.fixed_crop and crop != spec.crop:
            raise DataError(f"image size {crop}: {architecture.backbone} takes images of {spec.crop} pixels only")
        if crop < SMALLEST_CLASSIFIER_SIZE:
            raise DataError(
                f"image size {crop} is too small for a network of stride 32; give at least "
                f"{SMALLEST_CLASSIFIER_SIZE} (smaller images are enlarged)"
            )
        size = max(crop, round(crop / spec.crop_share))
        return Preprocessing(min_size=size, max_size=0, crop=crop, mean=spec.mean, std=spec.std)
    smallest, largest = architecture.image_size
    if architecture.family == "ssdlite":
        half = (0.5, 0.5, 0.5)
        return Preprocessing(min_size=image_size or smallest, max_size=0, mean=half, std=half, stretch=True)
    if image_size is not None and image_size != smallest:
        smallest, largest = image_size, round(image_size * 1333 / 800)
    spec = backbone_spec(architecture)
    return Preprocessing(min_size=smallest, max_size=largest, mean=spec.mean, std=spec.std)


def _room_for(detections: int, proposals: tuple[int, int]) -> tuple[int, int]:
    """At least three proposals in eval mode for each detection that may be wanted."""
    return proposals[0], max(proposals[1], 3 * detections)


def _norm(architecture: Architecture, weights: str) -> tuple[Norm, float]:
    """The norm layers that the weights were trained with.

    Detectors with pretrained weights freeze them, as torchvision does, because a batch of two images is too small to
    learn statistics from; its "v2" models and SSDLite have BatchNorm that learns. So have classifiers, whose batches
    are larger.
    """
    spec = backbone_spec(architecture)
    if architecture.task == "classify":
        return "batch", spec.norm_eps
    if architecture.family == "ssdlite":
        return "batch", architecture.coco_eps
    if weights == "none" or architecture.improved:
        return "batch", 1e-5
    if weights == "coco":
        return "frozen", architecture.coco_eps
    if weights == "imagenet":
        return "frozen", spec.norm_eps
    return _norm_of_file(architecture, read_state_dict(weights))


def _norm_of_file(architecture: Architecture, state: dict[str, Tensor]) -> tuple[Norm, float]:
    """Norm layers that a state dict without description was most likely trained with, as torchvision builds them."""
    if not any(name.startswith("backbone.") for name in state):
        return "frozen", backbone_spec(architecture).norm_eps  # a classification network
    if any(name.endswith("num_batches_tracked") for name in state):
        return "batch", 1e-5  # built without pretrained weights: BatchNorm that learned
    return "frozen", architecture.coco_eps


def _has_reduced_tail(weights: str) -> bool:
    """Whether SSDLite is built with the reduced tail of MobileNetV3, as torchvision does for these weights."""
    if weights in ("coco", "imagenet", "none"):
        return weights != "imagenet"
    return is_reduced_tail(read_state_dict(weights))
