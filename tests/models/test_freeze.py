"""Test that frozen parts have no gradients and fixed norm statistics, even after train()."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from detseg.errors import DataError
from detseg.models import LEVELS, build_model, describe, freeze, part_table, set_trainable_layers

PARTS = ["stem", "backbone", "neck", "rpn"]


def step(model: Any, small: Any) -> None:
    """Update everything trainable once, with noise on every gradient so that nothing stays unchanged by chance."""
    images, targets = small.batch([(64, 64), (64, 96)])
    for index, target in enumerate(targets):
        target["class_index"] = torch.tensor(index)
    if model.description.task == "classify":
        images = [image[:, :, :64] for image in images]
    loss = torch.stack(list(model(images, targets).values())).sum()
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter += 1e-3 * (parameter.grad + torch.rand_like(parameter))
                parameter.grad = None


def changed_parts(model: Any, small: Any) -> set[str]:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(model, small)
    after = model.state_dict()
    return {model.part_of(name) for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("arch", "level"),
    [*(("maskrcnn_resnet18_fpn", level) for level in LEVELS), ("fasterrcnn_mobilenet_v3_large_fpn", "stem")],
)
def test_levels_of_detectors(small: Any, arch: str, level: str) -> None:
    model = small.detector(arch)
    freeze(model, level)
    frozen = set(PARTS[: LEVELS.index(level)])
    nn.Sequential(model).train()  # a parent's train() must not unfreeze anything
    assert changed_parts(model, small) == set(model.parts()) - frozen
    assert {part.name for part in part_table(model) if part.trainable == 0} == frozen


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2", "mobilenet_v3_small"])
@pytest.mark.parametrize("level", ["none", "stem", "backbone"])
def test_levels_of_classifiers(small: Any, arch: str, level: str) -> None:
    model = small.classifier(arch)
    freeze(model, level)
    model.train()
    assert changed_parts(model, small) == {"stem", "backbone", "head"} - set(PARTS[: LEVELS.index(level)])


def test_norm_statistics_are_fixed_where_torchvision_updates_them(small: Any) -> None:
    images, targets = small.batch([(64, 64), (64, 96)])
    model = small.detector()
    freeze(model, "backbone")
    mean = model.backbone.body.bn1.running_mean
    before = mean.clone()
    for module in (model, model.backbone, model.backbone.body, model.backbone.body.bn1):
        module.train()
        model(images, targets)
        assert torch.equal(mean, before)
    freeze(model, "none")
    model(images, targets)
    assert not torch.equal(mean, before)  # control: a trainable backbone

    reference = resnet_fpn_backbone(  # control: what trainable_layers=0 freezes in torchvision
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=0
    )
    reference(torch.rand(2, 3, 64, 64))
    assert reference.body.bn1.running_mean.abs().max() > 0


def norms_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.backbone.body.bn1.state_dict().items()}


def test_norm_eval_trains_weights_but_not_statistics(small: Any) -> None:
    images, targets = small.batch([(64, 64), (64, 96)])
    model = small.detector()
    model.norm_eval = True
    before = norms_of(model)
    for module in (model, model.backbone.body, model.backbone.body.bn1):
        module.train()
        model(images, targets)
        assert all(torch.equal(before[name], tensor) for name, tensor in norms_of(model).items())
    step(model, small)
    changed = {name for name, tensor in norms_of(model).items() if not torch.equal(before[name], tensor)}
    assert changed == {"weight", "bias"}
    model(*small.batch([(20, 20)]))  # one value on the last map, but no statistics are computed from it
    model.norm_eval = False
    model.train()
    step(model, small)
    assert not torch.equal(before["running_mean"], norms_of(model)["running_mean"]), "control"


@pytest.mark.parametrize("layers", [0, 1, 4, 5])
def test_trainable_layers_are_torchvisions(small: Any, layers: int) -> None:
    model = small.detector()
    set_trainable_layers(model, layers)
    reference = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=layers
    )
    expected = {f"backbone.{name}": p.requires_grad for name, p in reference.named_parameters()}
    trainable = {name: p.requires_grad for name, p in model.named_parameters() if name.startswith("backbone.")}
    assert trainable == expected
    assert all(p.requires_grad for name, p in model.named_parameters() if not name.startswith("backbone."))


@pytest.mark.parametrize("layers", [0, 3, 6])
def test_trainable_layers_of_mobilenets_are_torchvisions(small: Any, layers: int) -> None:
    model = small.detector("fasterrcnn_mobilenet_v3_large_fpn")
    set_trainable_layers(model, layers)
    network = torchvision.models.mobilenet_v3_large(weights=None)
    reference = torchvision.models.detection.backbone_utils._mobilenet_extractor(network, True, layers)
    expected = {f"backbone.{name}": p.requires_grad for name, p in reference.named_parameters()}
    assert {n: p.requires_grad for n, p in model.named_parameters() if n.startswith("backbone.")} == expected


def test_zero_trainable_layers_freeze_the_backbone(small: Any) -> None:
    model = small.detector()
    set_trainable_layers(model, 0)
    assert model.is_frozen("stem", "backbone")
    assert not model.is_frozen("neck")


@pytest.mark.parametrize(("arch", "wrong"), [("resnet18", "neck"), ("resnet18", "rpn"), ("resnet18", "all")])
def test_levels_that_a_model_lacks_are_refused(small: Any, arch: str, wrong: str) -> None:
    with pytest.raises(DataError, match="known levels: none, stem, backbone"):
        freeze(small.classifier(arch), wrong)


@pytest.mark.parametrize("layers", [-1, 6])
def test_wrong_numbers_of_layers_are_refused(small: Any, layers: int) -> None:
    with pytest.raises(DataError, match="0 to 5"):
        set_trainable_layers(small.classifier(), layers)


def test_part_table(small: Any) -> None:
    model = small.detector("maskrcnn_resnet18_fpn")
    set_trainable_layers(model, 1)
    lines = [part.line() for part in part_table(model)]
    assert [line.split()[-1] for line in lines] == ["frozen", *["trainable"] * 5]
    assert "partly trainable" in lines[1]
    assert [part.name for part in part_table(model)] == ["stem", "backbone", "neck", "rpn", "box head", "mask head"]
    assert sum(part.trainable for part in part_table(model)) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )


def test_backbone_parameters_for_optimizer_groups(small: Any) -> None:
    for model in (small.detector(), small.classifier("mobilenet_v2")):
        names = {name for name, _ in model.named_parameters() if model.is_backbone_parameter(name)}
        total = sum(part.parameters for part in part_table(model) if part.name in ("stem", "backbone"))
        assert sum(p.numel() for name, p in model.named_parameters() if name in names) == total


@pytest.mark.parametrize(
    ("arch", "last"),
    [
        ("maskrcnn_resnet18_fpn", 4 * (4 + 1) * 1024 + 20 + (256 * 256 * 4 + 256) + (256 + 1) * 4),
        ("fasterrcnn_mobilenet_v3_large_fpn_slim", 4 * (4 + 1) * 192 + 20),
        ("retinanet_mobilenet_v2_fpn_slim", (96 * 9 + 1) * 9 * (4 + 4)),
        ("fcos_mobilenet_v2_fpn_slim", (96 * 9 + 1) * (4 + 4 + 1)),
        ("mobilenet_v2", 1281 * 3),
    ],
)
def test_output_layer_parameters_for_optimizer_groups(small: Any, arch: str, last: int) -> None:
    model = build_model(describe(arch, small.classes, weights="none"))
    names = [name for name, _ in model.named_parameters() if model.is_last_parameter(name)]
    assert sum(p.numel() for name, p in model.named_parameters() if name in names) == last
    assert not any(model.is_backbone_parameter(name) for name in names)
    control = [name for name, _ in model.named_parameters() if name not in names]
    assert control


def test_ssdlite_has_output_layers(small: Any) -> None:
    model = build_model(describe("ssdlite320_mobilenet_v3_large", small.classes, weights="none"))
    modules = {name.split(".")[1] for name, _ in model.named_parameters() if model.is_last_parameter(name)}
    assert modules == {"classification_head", "regression_head"}
