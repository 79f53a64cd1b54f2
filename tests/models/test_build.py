"""Test names, descriptions and structure of all models."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import detection
from torchvision.ops import FrozenBatchNorm2d

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import COCO_NAMES, KeypointSchema, keypoint_schema
from detseg.models import MODELS, ModelDescription, build_model, describe, part_table

CLASSES = ClassMap(("ant", "bee", "cat"), (7, 3, 90))
PUBLISHED = [name for name in MODELS if hasattr(detection, name)]


def test_the_documented_models_exist() -> None:
    backbones = ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "mobilenet_v3_large"]
    families = ("fasterrcnn", "maskrcnn", "keypointrcnn")
    rcnn = {f"{family}_{backbone}_fpn" for family in families for backbone in backbones}
    rcnn |= {f"{family}_mobilenet_{v}_fpn_slim" for family in families for v in ("v2", "v3_large")}
    rcnn |= {f"{family}_resnet50_fpn_v2" for family in families} | {"fasterrcnn_mobilenet_v3_large_320_fpn"}
    light = [
        f"{backbone}_fpn{slim}"
        for backbone, slim in (("resnet18", ""), ("mobilenet_v2", ""), ("mobilenet_v2", "_slim"))
    ]
    one_stage = {f"{family}_{name}" for family in ("retinanet", "fcos") for name in ("resnet50_fpn", *light)}
    one_stage |= {"retinanet_resnet50_fpn_v2", "ssdlite320_mobilenet_v3_large"}
    assert set(MODELS) == rcnn | one_stage | {*backbones, "mobilenet_v3_small"}
    assert len(PUBLISHED) == 11


@pytest.mark.parametrize("arch", MODELS)
def test_every_model_is_built_from_its_json_and_its_parts_cover_it(arch: str) -> None:
    description = describe(arch, CLASSES, weights="none", keypoints=keypoints_of(arch))
    assert ModelDescription.from_dict(json.loads(json.dumps(description.to_dict()))) == description
    with torch.device("meta"):
        model = build_model(description)
    state = model.state_dict()
    assert {model.part_of(name) for name in state} == set(model.parts())
    assert sum(part.parameters for part in part_table(model)) == sum(p.numel() for p in model.parameters())
    stages = [module for stage in model.backbone_stages() for module in stage]
    assert sorted(stages) == sorted(model.parts()["stem"] + model.parts()["backbone"])


@pytest.mark.parametrize("arch", PUBLISHED)
def test_published_detectors_have_torchvisions_keys(arch: str) -> None:
    with torch.device("meta"):
        reference = getattr(detection, arch)(weights=None, weights_backbone=None, num_classes=4)
        model = build_model(describe(arch, CLASSES, weights="none", keypoints=keypoints_of(arch)))
    assert shapes(model) == shapes(reference)


@pytest.mark.parametrize("arch", [name for name in MODELS if MODELS[name].task == "classify"])
def test_classifiers_have_torchvisions_keys(arch: str) -> None:
    with torch.device("meta"):
        reference = getattr(torchvision.models, arch)(weights=None, num_classes=3)
        model = build_model(describe(arch, CLASSES, weights="none"))
    assert shapes(model) == shapes(reference)


def keypoints_of(arch: str) -> KeypointSchema | None:
    """COCO's 17 keypoints for a keypoint model, else None."""
    return keypoint_schema(COCO_NAMES) if MODELS[arch].task == "keypoints" else None


def shapes(model: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, tensor.shape) for name, tensor in model.state_dict().items()]


@pytest.mark.parametrize(
    ("arch", "weights", "norm", "eps"),
    [
        ("maskrcnn_resnet50_fpn", "none", "batch", 1e-5),
        ("maskrcnn_resnet50_fpn", "coco", "frozen", 0.0),
        ("fasterrcnn_resnet50_fpn", "coco", "frozen", 0.0),
        ("maskrcnn_resnet50_fpn", "imagenet", "frozen", 1e-5),
        ("maskrcnn_resnet50_fpn_v2", "coco", "batch", 1e-5),
        ("fasterrcnn_mobilenet_v3_large_fpn", "coco", "frozen", 1e-5),
        ("fasterrcnn_mobilenet_v3_large_fpn", "imagenet", "frozen", 1e-3),
        ("maskrcnn_mobilenet_v2_fpn", "imagenet", "frozen", 1e-5),
        ("resnet50", "imagenet", "batch", 1e-5),
        ("mobilenet_v3_small", "imagenet", "batch", 1e-3),
    ],
)
def test_norm_layers_match_the_weights(arch: str, weights: str, norm: str, eps: float) -> None:
    description = describe(arch, CLASSES, weights=weights)
    assert (description.norm, description.norm_eps) == (norm, eps)
    with torch.device("meta"):
        model = build_model(description)
    norms = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d | nn.BatchNorm2d)]
    assert {(isinstance(m, FrozenBatchNorm2d), m.eps) for m in norms} == {(norm == "frozen", eps)}


@pytest.mark.parametrize(
    ("arch", "size", "expected"),
    [
        ("maskrcnn_resnet50_fpn", None, (800, 1333, 0)),
        ("maskrcnn_resnet50_fpn", 480, (480, 800, 0)),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", None, (320, 640, 0)),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 480, (480, 800, 0)),
        ("resnet18", None, (256, 0, 224)),
        ("resnet18", 64, (73, 0, 64)),
    ],
)
def test_image_size(arch: str, size: int | None, expected: tuple[int, int, int]) -> None:
    preprocessing = describe(arch, CLASSES, weights="none", image_size=size).preprocessing
    assert (preprocessing.min_size, preprocessing.max_size, preprocessing.crop) == expected


def test_defaults_for_small_data() -> None:
    description = describe("fasterrcnn_resnet18_fpn", CLASSES, weights="none", detections_per_image=400)
    assert description.rois_per_image == 128
    assert description.detections_per_image == 400
    assert description.rpn_post_nms_top_n[1] == 1200
    model: Any = build_model(description)
    assert model.roi_heads.fg_bg_sampler.batch_size_per_image == 128
    assert model.roi_heads.detections_per_img == 400


@pytest.mark.parametrize(
    ("arch", "settings", "message"),
    [
        ("resnet19", {}, r"'resnet19' is unknown; did you mean resnet1\d+, .* or .*\? List all \d+ with: python -c"),
        ("nothing-like-it", {}, r"is unknown\. List all \d+ with: python -c 'from detseg.models import MODELS"),
        ("maskrcnn_resnet50", {}, "did you mean maskrcnn_resnet50_fpn, "),
        ("resnet18", {"weights": "coco"}, "no published COCO weights"),
        ("fasterrcnn_resnet18_fpn", {"weights": "coco"}, "fasterrcnn_resnet50_fpn"),
        ("resnet18", {"weights": "none", "image_size": 32}, "too small"),
        ("fasterrcnn_resnet18_fpn", {"weights": "none", "rois_per_image": 0}, "rois_per_image"),
    ],
)
def test_wrong_settings_are_refused(arch: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        describe(arch, CLASSES, **settings)


def test_no_classes_and_missing_files_are_refused() -> None:
    with pytest.raises(DataError, match="no class"):
        describe("resnet18", ClassMap(()), weights="none")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        describe("resnet18", CLASSES, weights="nowhere.pth")


@pytest.mark.parametrize("key", ["arch", "colour"])
def test_descriptions_of_other_versions_are_refused(key: str) -> None:
    value = describe("resnet18", CLASSES, weights="none").to_dict()
    if value.pop(key, None) is None:
        value[key] = 1
    with pytest.raises(DataError, match=key):
        ModelDescription.from_dict(value)


def test_anchor_sizes_can_be_set_and_must_match_the_maps() -> None:
    sizes = ((8,), (16,), (32,), (64,), (128,))
    description = describe("fasterrcnn_mobilenet_v2_fpn", CLASSES, weights="none", anchor_sizes=sizes)
    with torch.device("meta"):
        model: Any = build_model(description)
        assert model.rpn.anchor_generator.sizes == sizes
        with pytest.raises(DataError, match="5 FPN maps"):
            build_model(replace(description, anchor_sizes=((8,),)))
