"""Create a description from a model name, and a randomly initialized model from a description, without downloads."""

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
from detseg.models.architecture_lookup import architecture_of, no_coco_weights
from detseg.models.architectures import MODELS, Architecture, octaves
from detseg.models.backbones import build_backbone, norm_layer
from detseg.models.classifier import Classifier
from detseg.models.description import ModelDescription, Norm
from detseg.models.detector import Detector
from detseg.models.one_stage import OneStageDetector
from detseg.models.one_stage_build import build_one_stage, is_reduced_tail
from detseg.models.ops.fast_ops import use_fast_ops
from detseg.models.ops.roi_align import GatheringRoIAlign
from detseg.models.timm_backbone import backbone_spec
from detseg.models.weights.starting_weights import StartingWeights
from detseg.pixel_values import Range
from detseg.preprocess import Preprocessing, longer_side
from detseg.tiling import Tiling

__all__ = ["MODELS", "Model", "ModelDescription", "architecture_of", "build_model", "describe"]

Model = Detector | OneStageDetector | Classifier

KEYPOINT_LAYERS = 8
"""Number of convolutions in the published keypoint head; their receptive field covers the whole box."""
SMALLEST_CLASSIFIER_SIZE = 33
"""From 33 pixels the last map has more than one pixel, which BatchNorm needs for a batch of one image."""


def describe(
    arch: str,
    class_map: ClassMap,
    *,
    weights: str | StartingWeights = "coco",
    image_size: int | None = None,
    rois_per_image: int = 128,
    mask_rois_per_image: int | None = None,
    detections_per_image: int = 100,
    anchor_sizes: tuple[tuple[int, ...], ...] | None = None,
    keypoints: KeypointSchema | None = None,
    label_fields: tuple[LabelField, ...] = (),
    value_range: Range | None = None,
    tiling: Tiling | None = None,
) -> ModelDescription:
    """Return the description of a new model that will be initialized with ``weights``.

    Args:
        arch: a key of ``MODELS``, or a family and a timm backbone, such as "fasterrcnn_timm:convnext_atto".
        weights: "coco", "imagenet", "bundled", "none" or a file, or these opened; determines the norm layers and, for
            a checkpoint of this project, the anchors (if the RPN is the same) and the default of ``image_size`` (if
            ``arch`` is the same).
        image_size: length of the shorter side in pixels (for classifiers: of the square crop); None for the size of
            torchvision's training: 800 (at most 1333), 320 (at most 640; SSDLite: the square that an image is
            stretched to), or 224.
        rois_per_image: ignored by one-stage detectors.
        mask_rois_per_image: as in ModelDescription; only for models with masks.
        anchor_sizes: anchor sides in pixels for each FPN map; None for the architecture's default. For RetinaNet a
            single side is expanded to the three of its octave.
        label_fields: for a classifier that predicts one class per field; ``class_map`` is then their ``joined`` one.
        keypoints: keypoint schema of a keypoint model, such as ``table.keypoint_schema``; None for other models.
        value_range: as in Preprocessing; None for that of a checkpoint of this project, if ``arch`` is the same.
        tiling: as in Preprocessing; None for whole images.

    Raises:
        DataError: the architecture is unknown or does not support these weights or this size, keypoints are missing
            or not supported, or the weights file is corrupt.
        OSError: the weights file cannot be opened.
    """
    architecture = architecture_of(arch)
    weights = StartingWeights.open(weights, arch)
    if weights.source == "coco" and architecture.coco is None:
        raise DataError(no_coco_weights(arch))
    if anchor_sizes is not None:
        if not architecture.anchor_sizes:
            raise DataError(
                f"{arch}: its anchor sizes are not configurable, but {anchor_sizes} are given; remove anchor_sizes"
            )
        anchor_sizes = octaves(anchor_sizes) if architecture.family == "retinanet" else anchor_sizes
    norm, norm_eps = _norm(architecture, weights)
    description = ModelDescription(
        arch=arch,
        task=architecture.task,
        class_map=class_map,
        preprocessing=replace(_preprocessing(architecture, image_size), value_range=value_range, tiling=tiling),
        norm=norm,
        norm_eps=norm_eps,
        anchor_sizes=anchor_sizes,
        rois_per_image=rois_per_image,
        mask_rois_per_image=mask_rois_per_image,
        rpn_pre_nms_top_n=architecture.rpn_pre_nms_top_n,
        rpn_post_nms_top_n=_proposals_for(detections_per_image, architecture.rpn_post_nms_top_n),
        rpn_score_threshold=architecture.rpn_score_threshold,
        score_threshold=architecture.score_threshold,
        nms_threshold=architecture.nms_threshold,
        detections_per_image=detections_per_image,
        topk_candidates=max(architecture.topk_candidates, 3 * detections_per_image),
        keypoints=keypoints,
        reduced_tail=architecture.family == "ssdlite" and _has_reduced_tail(weights),
        label_fields=label_fields,
    )
    return description if weights.description is None else _like_saved(description, weights.description, image_size)


def _like_saved(description: ModelDescription, saved: ModelDescription, image_size: int | None) -> ModelDescription:
    """Return ``description`` with what is not specified taken from the checkpoint that the model starts from."""
    arch, value_range = description.arch, description.preprocessing.value_range
    anchor_sizes = description.anchor_sizes
    description = replace(description, norm=saved.norm, norm_eps=saved.norm_eps)
    if saved.arch == arch or _has_same_rpn(architecture_of(arch), MODELS.get(saved.arch)):
        description = replace(
            description, anchor_sizes=anchor_sizes or saved.anchor_sizes, anchor_ratios=saved.anchor_ratios
        )
    if saved.arch != arch:
        return description
    preprocessing = saved.preprocessing if image_size is None else description.preprocessing
    value_range, tiling = value_range or saved.preprocessing.value_range, description.preprocessing.tiling
    return replace(description, preprocessing=replace(preprocessing, value_range=value_range, tiling=tiling))


def _has_same_rpn(architecture: Architecture, saved: Architecture | None) -> bool:
    """Return whether the RPN (or one-stage head) of a saved architecture is the same, so that its anchors apply."""
    fields = ("family", "backbone", "neck_channels", "improved")
    return saved is not None and all(getattr(saved, name) == getattr(architecture, name) for name in fields)


def build_model(description: ModelDescription) -> Model:
    """Build the model of ``description``, with random weights, in training mode, nothing frozen.

    Raises:
        DataError: the architecture is unknown, or the number of anchor sizes differs from the number of FPN maps.
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
    """Build torchvision's unmodified ``FasterRCNN``, ``MaskRCNN`` or ``KeypointRCNN`` for a description."""
    return _rcnn(architecture_of(description.arch), description)


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
    """Build the published heads with fewer channels."""
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
            f"{description.arch}: anchor sizes {sizes} do not match its {len(architecture.anchor_sizes)} FPN maps; "
            f"give every map the same number of sizes, such as {architecture.anchor_sizes}"
        )
    return AnchorGenerator(sizes, (description.anchor_ratios,) * len(sizes))


def _fix_scales(roi_heads: Any, strides: tuple[int, ...]) -> None:
    """Replace the RoI poolers by ones with a fast backward pass, and set the strides of the FPN maps.

    By default torchvision's pooler infers them from the first images that it gets and never updates them. For images
    much smaller than their padding the result is wrong: one 20 x 20 image makes all later ones wrong.
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
            raise DataError(f"image size {crop}: {architecture.backbone} accepts images of {spec.crop} pixels only")
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
        smallest, largest = image_size, longer_side(image_size)
    spec = backbone_spec(architecture)
    return Preprocessing(min_size=smallest, max_size=largest, mean=spec.mean, std=spec.std)


def _proposals_for(detections: int, proposals: tuple[int, int]) -> tuple[int, int]:
    """Return the numbers of proposals in training and eval mode, in eval mode at least three per detection."""
    return proposals[0], max(proposals[1], 3 * detections)


def _norm(architecture: Architecture, weights: StartingWeights) -> tuple[Norm, float]:
    """Return the kind and eps of the norm layers that the weights were trained with.

    Detectors with pretrained weights freeze the norm layers, as torchvision does, because a batch of two images is too
    small to estimate statistics; its "v2" models and SSDLite use trainable BatchNorm, and so do classifiers, whose
    batches are larger.
    """
    spec = backbone_spec(architecture)
    if architecture.task == "classify":
        return "batch", spec.norm_eps
    if architecture.family == "ssdlite":
        return "batch", architecture.coco_eps
    if weights.source == "none" or architecture.improved:
        return "batch", 1e-5
    if weights.source == "coco":
        return "frozen", architecture.coco_eps
    if weights.source == "imagenet":
        return "frozen", spec.norm_eps
    return _norm_of_file(architecture, weights.state)


def _norm_of_file(architecture: Architecture, state: dict[str, Tensor]) -> tuple[Norm, float]:
    """Return the norm layers that torchvision most likely used for a state dict without a description."""
    if not any(name.startswith("backbone.") for name in state):
        return "frozen", backbone_spec(architecture).norm_eps  # a classification network
    if any(name.endswith("num_batches_tracked") for name in state):
        return "batch", 1e-5  # built without pretrained weights: trainable BatchNorm
    return "frozen", architecture.coco_eps


def _has_reduced_tail(weights: StartingWeights) -> bool:
    """Return whether torchvision builds SSDLite with the reduced tail of MobileNetV3 for these weights."""
    return is_reduced_tail(weights.state) if weights.is_file else weights.source != "imagenet"
