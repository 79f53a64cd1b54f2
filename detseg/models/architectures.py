"""Define every model that can be built, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torchvision.models import detection

from detseg.models.description import Task

Family = Literal["rcnn", "retinanet", "fcos", "ssdlite"]


@dataclass(frozen=True)
class Architecture:
    """Settings of one architecture.

    Attributes:
        task: the task that it is built for.
        backbone: a key of ``BACKBONES``.
        coco: its published COCO weights; None if there are none. A Mask or Keypoint R-CNN may use those of the Faster
            R-CNN with the same backbone: its mask or keypoint head is then randomly initialized.
        coco_eps: eps of the norm layers for these weights.
        improved: torchvision's "v2": BatchNorm in backbone, neck and heads, deeper RPN and heads (Li et al. 2021,
            "Benchmarking Detection Transfer Learning with Vision Transformers").
        anchor_sizes: anchor sides in pixels of each feature map; empty if they are not configurable.
        image_size: shorter side, and limit of the longer side, in torchvision's training.
        rpn_pre_nms_top_n, rpn_post_nms_top_n, rpn_score_threshold: as in ModelDescription.
        family: kind of detector: two-stage ("rcnn") or one of the one-stage kinds.
        score_threshold, nms_threshold, topk_candidates: as in ModelDescription.
        neck_channels: channels of the FPN maps and of the mask head; 256 in every published model. The published
            keypoint head has 512, a slim one has as many as the FPN.
        head_channels: width of the box head's two layers; 1024 in every published model.
    """

    task: Task
    backbone: str
    coco: Any = None
    coco_eps: float = 1e-5
    improved: bool = False
    anchor_sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    image_size: tuple[int, int] = (800, 1333)
    rpn_pre_nms_top_n: tuple[int, int] = (2000, 1000)
    rpn_post_nms_top_n: tuple[int, int] = (2000, 1000)
    rpn_score_threshold: float = 0.0
    neck_channels: int = 256
    head_channels: int = 1024
    family: Family = "rcnn"
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    topk_candidates: int = 1000

    @property
    def slim(self) -> bool:
        """Whether neck and heads are narrower than the published ones."""
        return self.neck_channels != 256


_SMALL = (2000, 300)
"""Proposals after NMS for small, fast backbones: 300 in eval mode (Ren et al. 2015), because running the box head on
torchvision's 1000 proposals costs as much as such a backbone."""

_V3_ANCHORS = ((32, 64, 128, 256, 512),) * 3

_SLIM: dict[str, Any] = {
    "anchor_sizes": ((16,), (32,), (64,), (128,), (256,)),
    "image_size": (320, 533),
    "rpn_pre_nms_top_n": (500, 300),
    "rpn_post_nms_top_n": (300, 150),
    "neck_channels": 96,
    "head_channels": 256,
}
"""Few channels everywhere, and maps from stride 4: a few million parameters, for small images on small machines."""


def _rcnn(task: Task) -> dict[str, Architecture]:
    v1: Any = detection.FasterRCNN_ResNet50_FPN_Weights
    v2: Any = detection.FasterRCNN_ResNet50_FPN_V2_Weights
    if task == "segment":
        v1, v2 = detection.MaskRCNN_ResNet50_FPN_Weights, detection.MaskRCNN_ResNet50_FPN_V2_Weights
    elif task == "keypoints":
        v1 = detection.KeypointRCNN_ResNet50_FPN_Weights
    return {
        "resnet18_fpn": Architecture(task, "resnet18", rpn_post_nms_top_n=_SMALL),
        "resnet34_fpn": Architecture(task, "resnet34", rpn_post_nms_top_n=_SMALL),
        "resnet50_fpn": Architecture(
            task,
            "resnet50",
            coco=v1.COCO_V1,
            coco_eps=0.0,  # trained before FrozenBatchNorm2d had an eps (pytorch/vision #2933)
        ),
        "resnet50_fpn_v2": Architecture(
            task,
            "resnet50",
            coco=v2.COCO_V1,
            improved=True,
        ),
        "resnet101_fpn": Architecture(task, "resnet101"),
        "mobilenet_v2_fpn": Architecture(task, "mobilenet_v2", rpn_post_nms_top_n=_SMALL),
        "mobilenet_v3_large_fpn": Architecture(
            task,
            "mobilenet_v3_large",
            coco=detection.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
            anchor_sizes=_V3_ANCHORS,
            rpn_score_threshold=0.05,
        ),
        "mobilenet_v2_fpn_slim": Architecture(task, "mobilenet_v2", **_SLIM),
        "mobilenet_v3_large_fpn_slim": Architecture(task, "mobilenet_v3_large_fine", **_SLIM | {"head_channels": 192}),
    }


_ONE_STAGE_SLIM: dict[str, Any] = {"image_size": (320, 533), "neck_channels": 96}


def octaves(sizes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Return RetinaNet's three anchor sides of each map, a third of an octave apart; unchanged if a map has several."""
    if any(len(level) != 1 for level in sizes):
        return sizes
    return tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for (side,) in sizes)


_OCTAVES = octaves(((32,), (64,), (128,), (256,), (512,)))
_FINE_OCTAVES = octaves(((16,), (32,), (64,), (128,), (256,)))


def _retinanet(backbone: str, **settings: Any) -> Architecture:
    return Architecture("detect", backbone, **{"family": "retinanet", "anchor_sizes": _OCTAVES, **settings})


def _fcos(backbone: str, **settings: Any) -> Architecture:
    """Keep the default score threshold: FCOS scores are square roots of products, so torchvision's 0.2 would truncate
    the precision-recall curve of AP."""
    return Architecture("detect", backbone, **{"family": "fcos", "anchor_sizes": (), "nms_threshold": 0.6, **settings})


_ONE_STAGE: dict[str, Architecture] = {
    "ssdlite320_mobilenet_v3_large": Architecture(
        "detect",
        "mobilenet_v3_large",
        coco=detection.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
        coco_eps=1e-3,
        anchor_sizes=(),
        image_size=(320, 0),
        family="ssdlite",
        score_threshold=0.001,
        nms_threshold=0.55,
        topk_candidates=300,
    ),
    "retinanet_resnet18_fpn": _retinanet("resnet18"),
    "retinanet_resnet50_fpn": _retinanet(
        "resnet50",
        coco=detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
        coco_eps=0.0,  # like the R-CNN weights of the same period
    ),
    "retinanet_resnet50_fpn_v2": _retinanet(
        "resnet50", coco=detection.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1, improved=True
    ),
    "retinanet_mobilenet_v2_fpn": _retinanet("mobilenet_v2"),
    "retinanet_mobilenet_v2_fpn_slim": _retinanet("mobilenet_v2", anchor_sizes=_FINE_OCTAVES, **_ONE_STAGE_SLIM),
    "fcos_resnet18_fpn": _fcos("resnet18"),
    "fcos_resnet50_fpn": _fcos("resnet50", coco=detection.FCOS_ResNet50_FPN_Weights.COCO_V1),
    "fcos_mobilenet_v2_fpn": _fcos("mobilenet_v2"),
    "fcos_mobilenet_v2_fpn_slim": _fcos("mobilenet_v2", **_ONE_STAGE_SLIM),
}


MODELS: dict[str, Architecture] = {
    **{
        name: Architecture("classify", name, image_size=(256, 0))
        for name in (
            "resnet18",
            "resnet34",
            "resnet50",
            "resnet101",
            "mobilenet_v2",
            "mobilenet_v3_large",
            "mobilenet_v3_small",
        )
    },
    **{f"fasterrcnn_{name}": architecture for name, architecture in _rcnn("detect").items()},
    "fasterrcnn_mobilenet_v3_large_320_fpn": Architecture(
        "detect",
        "mobilenet_v3_large",
        coco=detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1,
        anchor_sizes=_V3_ANCHORS,
        image_size=(320, 640),
        rpn_pre_nms_top_n=(2000, 150),
        rpn_post_nms_top_n=(2000, 150),
        rpn_score_threshold=0.05,
    ),
    **{f"maskrcnn_{name}": architecture for name, architecture in _rcnn("segment").items()},
    **{f"keypointrcnn_{name}": architecture for name, architecture in _rcnn("keypoints").items()},
    **_ONE_STAGE,
}
