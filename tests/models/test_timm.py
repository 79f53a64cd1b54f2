"""Test timm networks with torchvision's heads and as classifiers against timm's own outputs."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detseg.checkpoints import load, save_checkpoint
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models import (
    Classifier,
    Detector,
    LoadReport,
    ModelDescription,
    build_model,
    describe,
    freeze,
    load_weights,
    losses_in_eval_mode,
)
from detseg.models.build import architecture_of
from detseg.models.freeze import part_table, set_trainable_layers
from detseg.models.timm_backbone import architecture_name, backbone_spec

timm = pytest.importorskip("timm")

CLASSES = ClassMap(("ant", "bee", "cat"))
PYRAMIDS = ["test_convnext", "test_byobnet", "test_efficientnet", "test_resnet", "test_mambaout"]
"""LayerNorm; BatchNorm with activation; a network that timm does not flatten; plain BatchNorm; channels last."""


def detector(name: str, family: str = "fasterrcnn", weights: str = "none", **changes: Any) -> Detector:
    described = describe(f"{family}_timm:{name}", CLASSES, weights=weights, rois_per_image=16, detections_per_image=5)
    small = {"rpn_pre_nms_top_n": (50, 40), "rpn_post_nms_top_n": (30, 20)}
    return deepcopy(_built(replace(described, **(small | changes))))


@lru_cache
def _built(description: ModelDescription) -> Detector:
    torch.manual_seed(0)
    model = build_model(description)
    assert isinstance(model, Detector)
    return model


def classifier(name: str) -> Classifier:
    torch.manual_seed(0)
    model = build_model(describe(f"classifier_timm:{name}", CLASSES, weights="none"))
    assert isinstance(model, Classifier)
    return model


def timm_network(name: str, **options: Any) -> Any:
    """Return timm's own network with weights different from our model, and non-initial norm statistics."""
    torch.manual_seed(7)
    network = timm.create_model(name, pretrained=False, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def backbone_maps(model: Any, image: torch.Tensor) -> dict[str, torch.Tensor]:
    freeze(model, "backbone")
    maps: dict[str, torch.Tensor] = model.eval().frozen_features([image])[0].maps
    return maps


def save(network: nn.Module, path: Path) -> str:
    torch.save(network.state_dict(), path)
    return str(path)


# A backbone returns the same maps as timm's features_only network.


@pytest.mark.parametrize(
    ("name", "frozen"), [*((name, False) for name in PYRAMIDS), ("test_byobnet", True), ("test_resnet", True)]
)
def test_backbone_maps_equal_timms(name: str, frozen: bool, tmp_path: Path) -> None:
    reference = timm_network(name, features_only=True)
    path = save(timm_network(name), tmp_path / "weights.pth")
    reference.load_state_dict(
        {k.replace("network.", ""): v for k, v in _features_of(timm_network(name), reference).items()}
    )
    model = detector(name, weights=path if frozen else "none")
    assert model.description.norm == ("frozen" if frozen else "batch")
    load_weights(model, path)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    expected = list(reference(model.normalise(image)[None]))
    if name == "test_mambaout":
        expected = [level.permute(0, 3, 1, 2) for level in expected]
    maps = backbone_maps(model, image)
    assert list(maps) == ["0", "1", "2", "3"]
    for actual, reference in zip(maps.values(), expected[-4:], strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-4, atol=1e-4)
    control = backbone_maps(detector(name, weights=path if frozen else "none"), image)
    assert not torch.allclose(control["3"], expected[-1], atol=1e-3)


def _features_of(network: nn.Module, features: nn.Module) -> dict[str, torch.Tensor]:
    """Return the features_only state dict from a whole network, as timm does: with flattened names."""
    flat = {name.replace(".", "_"): value for name, value in network.state_dict().items()}
    return {name: flat[name.replace(".", "_")] for name in features.state_dict()}


def test_maps_of_stride_two_are_left_out_and_anchors_fit_the_rest() -> None:
    backbone = backbone_spec(architecture_of("fasterrcnn_timm:test_resnet"))
    assert backbone.strides == (4, 8, 16, 32)
    assert list(backbone.levels.values()) == [32, 48, 192, 96]
    assert architecture_of("fasterrcnn_timm:test_resnet").anchor_sizes == ((32,), (64,), (128,), (256,), (512,))


def test_swin_accepts_any_multiple_of_32() -> None:
    with torch.device("meta"):
        model = build_model(describe("fasterrcnn_timm:swin_tiny_patch4_window7_224", CLASSES, weights="none"))
    maps = model.backbone.body(torch.empty(1, 3, 96, 160, device="meta"))
    assert [tuple(level.shape[1:]) for level in maps.values()] == [
        (96, 24, 40),
        (192, 12, 20),
        (384, 6, 10),
        (768, 3, 5),
    ]


# The contract of a detector.


@pytest.mark.parametrize(("family", "name"), [("fasterrcnn", "test_convnext"), ("maskrcnn", "test_byobnet")])
def test_losses_and_predictions(small: Any, family: str, name: str) -> None:
    model = detector(name, family)
    images, targets = small.batch([(70, 90), (64, 64)], [2, 0])
    losses = model(images, targets)
    names = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert set(losses) == names | ({"loss_mask"} if family == "maskrcnn" else set())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    predictions = model.eval()(images)
    assert [len(p.boxes) <= 5 for p in predictions] == [True, True]
    assert {model.part_of(key) for key in model.state_dict()} == set(model.parts())
    assert sum(part.parameters for part in part_table(model)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["test_convnext", "test_byobnet"])
def test_freezing_stem_and_backbone(small: Any, name: str) -> None:
    model = detector(name)
    images, targets = small.batch([(64, 64), (64, 64)])
    for level, unfrozen in (("stem", {"backbone"}), ("backbone", set())):
        freeze(model, level)
        before = {key: value.clone() for key, value in model.backbone.body.state_dict().items()}
        model.train()
        model.zero_grad()
        torch.stack(list(model(images, targets).values())).sum().backward()
        changed = {
            model.part_of(f"backbone.body.{k}")
            for k, v in model.backbone.body.state_dict().items()
            if (v != before[k]).any()
        }
        assert changed <= unfrozen  # norm statistics
        trainable = {
            model.part_of(n) for n, p in model.backbone.body.named_parameters("backbone.body") if p.requires_grad
        }
        assert trainable == unfrozen
        assert {part.name for part in part_table(model) if part.trainable == 0} == {"stem", "backbone"} - unfrozen
    assert not changed


def test_trainable_layers_count_stages_from_the_end() -> None:
    model = detector("test_convnext")
    assert [stage[0].rpartition(".")[2] for stage in model.backbone_stages()] == [
        *("stem_0", "stages_0", "stages_1", "stages_2", "stages_3")
    ]
    set_trainable_layers(model, 1)
    trainable = {
        name.split(".")[3] for name, p in model.backbone.body.named_parameters("backbone.body") if p.requires_grad
    }
    assert trainable == {"stages_3"}
    set_trainable_layers(model, 0)
    assert not any(p.requires_grad for p in model.backbone.body.parameters())


def test_the_validation_loss_does_not_change_norm_statistics(small: Any) -> None:
    model = detector("test_byobnet")  # whose norm layers contain their activation
    images, targets = small.batch([(64, 64), (64, 64)])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with losses_in_eval_mode(model):
        model(images, targets)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model(images, targets)  # control: training changes them
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_a_checkpoint_rebuilds_the_model(small: Any, tmp_path: Path, norm: str) -> None:
    model = detector("test_byobnet", norm=norm).eval()
    save_checkpoint(tmp_path / "a.safetensors", model)
    again = load(tmp_path / "a.safetensors")
    frozen = [m for m in again.modules() if isinstance(m, timm.layers.FrozenBatchNormAct2d)]
    assert bool(frozen) == (norm == "frozen")
    images, _ = small.batch([(64, 64)])
    for expected, actual in zip(model(images), again(images), strict=True):
        np.testing.assert_array_equal(expected.scores, actual.scores)


# Weights.


@pytest.mark.parametrize("kind", ["pth", "maps", "safetensors"])
@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet"])
def test_weights_from_a_file_are_loaded_into_the_backbone(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if kind == "safetensors":
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(timm_network(name).state_dict(), path)
    else:
        save(timm_network(name, features_only=kind == "maps"), path)
    model = detector(name)
    report = load_weights(model, str(path))
    assert _loaded(report) == {"stem": True, "backbone": True, "neck": False, "rpn": False, "box head": False}
    assert str(path) in report.lines()[0]


def test_detectors_load_classifier_and_detector_files(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", classifier("test_resnet"))
    first = detector("test_resnet")
    assert _loaded(load_weights(first, str(tmp_path / "c.safetensors")))["backbone"]
    save_checkpoint(tmp_path / "d.safetensors", first)
    report = load_weights(detector("test_resnet", "maskrcnn"), str(tmp_path / "d.safetensors"))
    assert {part for part, complete in _loaded(report).items() if not complete} == {"mask head"}


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = save(timm_network("test_convnext2"), tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"weights\.pth: none of its 56 tensors matches fasterrcnn_timm:test_convnext"):
        load_weights(detector("test_convnext"), path)


def _loaded(report: LoadReport) -> dict[str, bool]:
    return {part: count == total for part, count, total in report.by_part}


@pytest.mark.parametrize(
    ("family", "complete_parts"), [("fasterrcnn", {"stem", "backbone"}), ("classifier", {"stem", "backbone"})]
)
def test_imagenet_weights_are_timms(monkeypatch: pytest.MonkeyPatch, family: str, complete_parts: set[str]) -> None:
    reference = timm_network("test_convnext")
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, **options: reference if options.get("pretrained") else create(name, **options),
    )
    model = detector("test_convnext") if family == "fasterrcnn" else classifier("test_convnext")
    report = load_weights(model, "imagenet")
    assert {part for part, complete in _loaded(report).items() if complete} == complete_parts
    assert "imagenet (timm/test_convnext" in report.source
    assert "licence" in report.source


def test_class_transfer_with_timms_weights_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = timm_network("test_convnext", num_classes=7)
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, **options: reference if options.get("pretrained") else create(name, **options),
    )
    model = classifier("test_convnext")
    name = model.description.class_map.names[1]
    report = load_weights(model, "imagenet", class_transfer={name: "5"})
    assert report.matched == ((name, "row 5"),)
    head = reference.get_classifier()
    assert torch.equal(model.state_dict()["classifier.weight"][1], head.weight[5])
    with pytest.raises(DataError, match=r"--class-transfer .*: the weights have no class rows of this head's shape"):
        load_weights(detector("test_convnext"), "imagenet", class_transfer={name: "5"})


def test_offline_message_has_cache_path_address_and_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError) as raised:
        load_weights(detector("test_convnext"), "imagenet")
    for part in (str(tmp_path), "https://huggingface.co/timm/test_convnext", "--weights PATH", "--weights none"):
        assert part in str(raised.value)


# Classifiers.


@pytest.mark.parametrize(
    "name", ["test_convnext", "test_resnet", "test_efficientnet", "test_vit", "test_mambaout", "resnetv2_18"]
)
def test_a_classifier_equals_timms(name: str, tmp_path: Path) -> None:
    reference = timm_network(name, num_classes=3)
    model = classifier(name).eval()
    report = load_weights(model, save(reference, tmp_path / "weights.pth"))
    assert all(_loaded(report).values())
    assert not report.unexpected
    side = model.preprocessing.crop
    images = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(2)]
    with torch.no_grad():
        expected = reference(torch.stack([model.normalise(image) for image in images])).softmax(1)
    np.testing.assert_allclose([p.probabilities for p in model(images)], expected, atol=1e-5)


def test_heads_of_a_distilled_network_are_randomly_initialized(tmp_path: Path) -> None:
    report = load_weights(
        classifier("levit_128s"), save(timm_network("levit_128s", num_classes=3), tmp_path / "weights.pth")
    )
    assert _loaded(report) == {"stem": True, "backbone": True, "head": False}
    assert "head.linear.weight" in report.unexpected


def test_a_classifiers_preprocessing_is_timms() -> None:
    preprocessing = classifier("test_vit").preprocessing
    assert (preprocessing.crop, preprocessing.min_size) == (160, 168)
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)
    assert detector("test_convnext").preprocessing.mean == (0.5, 0.5, 0.5)
    with pytest.raises(DataError, match="160 pixels only"):
        describe("classifier_timm:test_vit", CLASSES, weights="none", image_size=224)


def test_a_vision_transformer_trains_with_a_frozen_backbone_and_is_reloaded(tmp_path: Path) -> None:
    model = classifier("test_vit")  # with parameters that are not in a child module
    freeze(model, "backbone")
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable == ["classifier.weight", "classifier.bias"]
    images = [torch.randint(0, 256, (3, 160, 160), dtype=torch.uint8) for _ in range(2)]
    targets = [{"class_index": torch.tensor(1)}, {"class_index": torch.tensor(0)}]
    model(images, targets)["loss_classifier"].backward()
    save_checkpoint(tmp_path / "a.safetensors", model.eval())
    again = load(tmp_path / "a.safetensors")
    for expected, actual in zip(model(images), again(images), strict=True):
        np.testing.assert_array_equal(expected.probabilities, actual.probabilities)


# Names.


@pytest.mark.parametrize(
    ("model", "backbone", "expected"),
    [
        ("fasterrcnn_resnet18_fpn", None, "fasterrcnn_resnet18_fpn"),
        ("fasterrcnn", "resnet18", "fasterrcnn_resnet18_fpn"),
        ("classifier", "mobilenet_v2", "mobilenet_v2"),
        ("maskrcnn", "timm:convnext_atto", "maskrcnn_timm:convnext_atto"),
        ("classifier", "timm:convnext_atto.d2_in1k", "classifier_timm:convnext_atto.d2_in1k"),
    ],
)
def test_model_and_backbone_are_merged_to_one_name(model: str, backbone: str | None, expected: str) -> None:
    assert architecture_name(model, backbone) == expected
    assert architecture_of(expected).backbone.endswith((backbone or "resnet18").removeprefix("timm:"))


@pytest.mark.parametrize(
    ("model", "backbone", "message"),
    [
        ("fasterrcnn", "resnet19", "--backbone resnet19 does not exist"),
        ("classifier", "fasterrcnn_resnet18_fpn", "does not exist"),
        ("ssdlite", "timm:convnext_atto", "does not support timm backbones"),
    ],
)
def test_invalid_combinations_are_refused(model: str, backbone: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        architecture_name(model, backbone)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("fasterrcnn", "needs a backbone, such as --backbone timm:"),
        ("fasterrcnn_timm:convnext_att", "no network with this name.*timm:convnext_atto"),
        ("fasterrcnn_timm:", "no network with this name"),
        ("fasterrcnn_timm:hf-hub:owner/model", "no network with this name"),
        ("fasterrcnn_timm:convnext_atto.missing", "no such variant; available: timm:convnext_atto.d2_in1k"),
        ("fasterrcnn_timm:test_vit", r"stride 16, 16, 16; an FPN needs .* --model classifier"),
        ("fasterrcnn_timm:maxvit_pico_rw_256", r"any multiple of 32 pixels .*Choose another"),
        ("own", "load.path, build=...."),
    ],
)
def test_invalid_backbones_are_refused(arch: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        architecture_of(arch)


def test_without_timm_the_message_contains_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(DataError, match=r"pip install 'detseg\[timm\]'"):
        architecture_of("fasterrcnn_timm:test_convnext3")


def test_frozen_norms_keep_eps_and_activation() -> None:
    frozen, trainable = detector("test_byobnet", norm="frozen"), detector("test_byobnet", norm="batch")
    kinds = [(type(m).__name__, type(m.act).__name__, m.eps) for m in trainable.modules() if hasattr(m, "running_mean")]
    same = [(type(m).__name__, type(m.act).__name__, m.eps) for m in frozen.modules() if hasattr(m, "running_mean")]
    assert {name for name, _, _ in same} == {"FrozenBatchNormAct2d"}
    assert [rest for _, *rest in kinds] == [rest for _, *rest in same]
    assert any(act == "ReLU" for _, act, _ in same)
    resnet = detector("test_resnet", norm="frozen")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in resnet.modules())
    assert any(isinstance(m, FrozenBatchNorm2d) for m in resnet.modules())
