"""``detseg describe``: counts are those that torchvision publishes, and those that an independent sum gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torchvision.models import detection

from detseg.classes import ClassMap
from detseg.cli import main
from detseg.errors import DataError
from detseg.models import build_model, describe, freeze
from detseg.models.measure import ModuleSize, measure
from detseg.options import DescribeConfig
from detseg.recipes.describe import describe as describe_recipe
from detseg.runtime.reporter import Reporter, silent

PUBLISHED = {
    "fasterrcnn_resnet50_fpn": detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "maskrcnn_resnet50_fpn": detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    "keypointrcnn_resnet50_fpn": detection.KeypointRCNN_ResNet50_FPN_Weights.COCO_V1,
    "ssdlite320_mobilenet_v3_large": detection.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
    "fcos_resnet50_fpn": detection.FCOS_ResNet50_FPN_Weights.COCO_V1,
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V2,
    "mobilenet_v3_small": torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_that_torchvision_publishes(name: str) -> None:
    described = describe_recipe(DescribeConfig(model=name), reporter=silent())
    assert described.modules[0].parameters == PUBLISHED[name].meta["num_params"]


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_small", "ssdlite320_mobilenet_v3_large"])
def test_multiply_adds_are_those_that_torchvision_publishes(name: str) -> None:
    """torchvision calls them GFLOPS; it counts with torch's counter, too."""
    described = describe_recipe(DescribeConfig(model=name), reporter=silent())
    published = PUBLISHED[name].meta["_ops"]
    assert described.modules[0].multiply_adds / 1e9 == pytest.approx(published, abs=0.0011)
    assert described.modules[0].multiply_adds / 1e9 != pytest.approx(2 * published, abs=0.0011), "control: FLOPs"


def sizes(name: str, classes: int, size_hw: tuple[int, int]) -> tuple[Any, dict[str, ModuleSize]]:
    model = build_model(describe(name, ClassMap.from_names([f"c{i}" for i in range(classes)]), weights="imagenet"))
    freeze(model, "backbone")
    return model, {size.name: size for size in measure(model, size_hw)}


def test_modules_add_up() -> None:
    model, by_name = sizes("maskrcnn_resnet18_fpn", 3, (96, 128))
    whole = by_name[""]
    assert whole.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert whole.trainable == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert (whole.state, by_name["backbone.body"].state, by_name["roi_heads"].state) == (
        "partly trainable", "frozen", "trainable",
    )  # fmt: skip
    parts = [by_name[name] for name in ("backbone", "rpn", "roi_heads")]
    for attribute in ("parameters", "trainable", "weight_bytes", "activation_bytes", "multiply_adds"):
        own = 24 if attribute == "weight_bytes" else 0  # mean and std, float32 [3] each
        assert getattr(whole, attribute) == own + sum(getattr(part, attribute) for part in parts), attribute
        assert getattr(whole, attribute) > 0
    assert by_name["backbone.body.layer4"].shapes == [(1, 512, 3, 4)]
    assert by_name["roi_heads.mask_predictor"].shapes == [(100, 4, 28, 28)], "the most detections of an image"
    conv = by_name["backbone.body.conv1"]
    assert conv.multiply_adds == 64 * 48 * 64 * 3 * 7 * 7, "output pixels x channels x kernel"
    assert conv.activation_bytes == 4 * 64 * 48 * 64
    assert next(model.parameters()).device.type == "cpu", "the model is not changed"
    assert not model.backbone.body.conv1._forward_hooks


def test_a_list_of_layers_has_the_sum_of_its_layers() -> None:
    _, by_name = sizes("ssdlite320_mobilenet_v3_large", 3, (320, 320))
    assert by_name["backbone"].multiply_adds == sum(
        by_name[name].multiply_adds for name in ("backbone.features", "backbone.extra")
    )
    assert by_name["backbone"].multiply_adds > by_name["head"].multiply_adds > 0


@pytest.mark.slow
def test_a_run_is_described_with_its_frozen_parts(
    parts: Path, train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_images: None
) -> None:
    run = train(parts, tmp_path / "run", "--freeze", "backbone", "--epochs", "1")
    capsys.readouterr()
    assert main(["describe", str(run), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    states = {module["name"]: module["state"] for module in content["modules"]}
    assert (states["backbone.body"], states["roi_heads"]) == ("frozen", "trainable")
    assert (content["classes"], content["task"], content["input"][0]) == (3, "segment", 3)
    assert content["parameters"] > content["trainable"] > 0
    assert main(["describe", str(run), "--freeze", "none"]) == 0
    text = capsys.readouterr().out
    assert "frozen" not in text
    assert f"parameters      {content['parameters']:,}, trainable {content['parameters']:,}" in text


def test_text_has_the_levels_that_were_asked_for() -> None:
    events: list[Any] = []
    for depth in (1, 2):
        describe_recipe(DescribeConfig(model="resnet18", depth=depth), reporter=Reporter(events.append))
    shallow, deep = (event.text.splitlines() for event in events)
    assert shallow[0] == "resnet18, classify, 1000 classes, input 3 x 224 x 224"
    assert [line.split()[0] for line in shallow[4:-5]] == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert "parameters      11,689,512, trainable 11,689,512" in shallow
    assert len(deep) > len(shallow) + 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "fasterrcnn_resnet5_fpn"}, "did you mean fasterrcnn_resnet50_fpn"),
        ({"model": "resnet18", "freeze": "rpn"}, "known levels"),
        ({"model": ".", "class_count": 3}, "--class-count and --image-size are for a model name"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises((DataError, OSError), match=message):
        describe_recipe(DescribeConfig(**options), reporter=silent())


def test_class_count_and_image_size() -> None:
    config = DescribeConfig(model="fasterrcnn_mobilenet_v2_fpn_slim", class_count=2, image_size=160)
    described = describe_recipe(config, reporter=silent())
    assert described.classes == 2
    assert min(described.size_hw) == 160
    assert torch.get_default_device().type == "cpu"
