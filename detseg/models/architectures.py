"""Every model that can be built, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchvision.models import detection

from detseg.models.description import Task


@dataclass(frozen=True)
class Architecture:
    """What a name stands for.

    Attributes:
        task: what it gives.
        body: a name of ``BODIES``.
        coco: its published COCO weights; None if there are none. A Mask R-CNN may have those of the Faster R-CNN of
            the same body: then its mask head starts from scratch.
        coco_eps: eps of the norm layers under these weights.
        improved: torchvision's "v2": BatchNorm in body, neck and heads, deeper RPN and heads (Li et al. 2021,
            "Benchmarking Detection Transfer Learning with Vision Transformers").
        anchor_sizes: anchor sides in pixels of each map.
        image_size: shorter side, and limit of the longer side, that torchvision trains it with.
        rpn_pre_nms_top_n, rpn_post_nms_top_n, rpn_score_threshold: as in ModelDescription.
        neck_channels: channels of the FPN's maps and of the mask head; 256 in every published model.
        head_channels: width of the box head's two layers; 1024 in every published model.
    """

    task: Task
    body: str
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

    @property
    def slim(self) -> bool:
        """Whether neck and heads are narrower than the published ones."""
        return self.neck_channels != 256


_SMALL = (2000, 300)
"""Proposals after NMS for bodies that are chosen for speed: 300 in eval mode (Ren et al. 2015), because a box head over
torchvision's 1000 costs as much as such a body."""

_V3_ANCHORS = ((32, 64, 128, 256, 512),) * 3

_SLIM: dict[str, Any] = {
    "anchor_sizes": ((16,), (32,), (64,), (128,), (256,)),
    "image_size": (320, 533),
    "rpn_pre_nms_top_n": (500, 300),
    "rpn_post_nms_top_n": (300, 150),
    "neck_channels": 96,
    "head_channels": 256,
}
"""Everything narrow, and maps from stride 4 on: a few million parameters, for small pictures on small machines."""


def _rcnn(task: Task) -> dict[str, Architecture]:
    masks = task == "segment"
    return {
        "resnet18_fpn": Architecture(task, "resnet18", rpn_post_nms_top_n=_SMALL),
        "resnet34_fpn": Architecture(task, "resnet34", rpn_post_nms_top_n=_SMALL),
        "resnet50_fpn": Architecture(
            task,
            "resnet50",
            coco=(
                detection.MaskRCNN_ResNet50_FPN_Weights if masks else detection.FasterRCNN_ResNet50_FPN_Weights
            ).COCO_V1,
            coco_eps=0.0,  # trained before FrozenBatchNorm2d had an eps (pytorch/vision #2933)
        ),
        "resnet50_fpn_v2": Architecture(
            task,
            "resnet50",
            coco=(
                detection.MaskRCNN_ResNet50_FPN_V2_Weights if masks else detection.FasterRCNN_ResNet50_FPN_V2_Weights
            ).COCO_V1,
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
        "mobilenet_v3_large_fpn_slim": Architecture(task, "mobilenet_v3_large_fine", **_SLIM),
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
}
