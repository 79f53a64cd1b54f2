"""Test starting weights from every source, and the messages when they are missing."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor
from torchvision.models import detection

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models import Detector, build_model, describe, load_weights, read_state_dict
from detseg.models.architectures import MODELS
from detseg.models.backbones import BACKBONES
from detseg.models.weights.load import load_state
from detseg.models.weights.published import cache_path, fetch

CLASSES = ClassMap(("ant", "bee", "cat"))
MOBILENET = "mobilenet_v2"


def model_of(arch: str, weights: str = "none") -> Any:
    return build_model(describe(arch, CLASSES, weights=weights, image_size=64))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch cache, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network here")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def mobilenet() -> dict[str, Tensor]:
    torch.manual_seed(1)
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    return {name: tensor + 0.01 if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename to the names in torchvision's published detection files, which are from before 0.13."""
    old = {}
    for name, tensor in state.items():
        name = re.sub(r"((?:inner|layer)_blocks\.\d+)\.0\.", r"\1.", name)
        name = re.sub(r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv.", name)
        old[re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", name)] = tensor
    return old


def test_nothing_is_loaded_for_weights_none() -> None:
    model = model_of("resnet18")
    report = load_weights(model, "none")
    assert report.loaded == ()
    assert report.lines() == ["weights: none; all parts are randomly initialized"]


def test_imagenet_weights_are_loaded_into_a_classifier_except_its_last_layer(
    cache: Path, mobilenet: dict[str, Tensor]
) -> None:
    torch.save(mobilenet, cache / Path(BACKBONES[MOBILENET].imagenet.url).name)
    model = model_of(MOBILENET)
    report = load_weights(model, "imagenet")
    assert torch.equal(model.features[0][0].weight, mobilenet["features.0.0.weight"])
    assert report.missing == report.unexpected == ()
    assert report.mismatched == (
        "classifier.1.weight [1000, 1280], model [3, 1280]",
        "classifier.1.bias [1000], model [3]",
    )
    assert report.lines()[:3] == [
        "weights: imagenet (mobilenet_v2-b0353104.pth); 260 of 262 tensors loaded",
        "  loaded: stem, backbone",
        "  randomly initialized: head",
    ]


def test_imagenet_weights_are_loaded_into_a_detectors_backbone(cache: Path, mobilenet: dict[str, Tensor]) -> None:
    torch.save(mobilenet, cache / Path(BACKBONES[MOBILENET].imagenet.url).name)
    model = model_of("maskrcnn_mobilenet_v2_fpn", "imagenet")
    report = load_weights(model, "imagenet")
    assert torch.equal(model.backbone.body["0"][0].weight, mobilenet["features.0.0.weight"])
    assert "  loaded: stem, backbone" in report.lines()
    assert [part for part, loaded, _ in report.by_part if not loaded] == ["neck", "rpn", "box head", "mask head"]
    assert "classifier.1.weight" in " ".join(report.unexpected)
    reference = torchvision.models.mobilenet_v2(weights=None).eval()
    reference.load_state_dict(mobilenet)
    batch = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone.body(batch)["3"], reference.features[:18](batch))


@pytest.mark.parametrize(
    ("arch", "published_arch", "old"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn", False),
        ("maskrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_fpn", False),
        ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", True),
    ],
)
def test_coco_weights_are_loaded_except_rows_of_other_classes(
    cache: Path, arch: str, published_arch: str, old: bool
) -> None:
    published = getattr(detection, published_arch)(weights=None, weights_backbone=None, num_classes=91).state_dict()
    published = {name: tensor for name, tensor in published.items() if not name.endswith("num_batches_tracked")}
    torch.save(old_names(published) if old else published, cache / Path(MODELS[arch].coco.url).name)
    model = model_of(arch, "coco")
    report = load_weights(model, "coco")
    last = {
        f"roi_heads.box_predictor.{layer}.{kind}" for layer in ("cls_score", "bbox_pred") for kind in WEIGHT_AND_BIAS
    }
    masks = {f"roi_heads.mask_predictor.mask_fcn_logits.{kind}" for kind in WEIGHT_AND_BIAS}
    if arch == "maskrcnn_resnet50_fpn":
        last |= masks
    assert set(report.by_class) == last  # a cat is in COCO, an ant and a bee are not
    assert report.mismatched == report.unexpected == ()
    assert report.matched == (("cat", "cat"),)
    if arch == "maskrcnn_mobilenet_v3_large_fpn":  # Faster R-CNN's weights: the mask head is not in them
        assert {model.part_of(name) for name in report.missing} == {"mask head"}
        assert "  randomly initialized: mask head" in report.lines()
    else:
        assert report.missing == ()
    state = model.state_dict()
    assert all(torch.equal(state[name], published[name]) for name in report.loaded)


WEIGHT_AND_BIAS = ("weight", "bias")


@pytest.mark.parametrize("weights", ["coco", "imagenet"])
def test_without_a_network_the_error_has_file_url_and_alternatives(cache: Path, weights: str) -> None:
    arch = "maskrcnn_resnet50_fpn"
    url = MODELS[arch].coco.url if weights == "coco" else BACKBONES["resnet50"].imagenet.url
    with torch.device("meta"):
        model: Any = build_model(describe(arch, CLASSES, weights=weights))
    with pytest.raises(DataError) as caught:
        load_weights(model, weights)
    message = str(caught.value)
    for text in (Path(url).name, url, str(cache / Path(url).name), "--weights PATH", "imagenet", "none"):
        assert text in message


def test_missing_coco_weights_are_refused() -> None:
    with torch.device("meta"):
        model: Any = build_model(describe("maskrcnn_resnet18_fpn", CLASSES, weights="none"))
    with pytest.raises(DataError, match=r"maskrcnn_resnet50_fpn, .*imagenet \(the backbone only\), none"):
        load_weights(model, "coco")


def test_urls_are_downloaded_to_the_cache_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    source = tmp_path / "net.pth"
    torch.save({"weight": torch.ones(2)}, source)
    assert torch.equal(fetch(source.as_uri())["weight"], torch.ones(2))
    assert cache_path(source.as_uri()).is_file()
    wrong = source.rename(tmp_path / "net-deadbeef.pth")
    with pytest.raises(DataError, match="corrupt"):
        fetch(wrong.as_uri())
    cache_path(source.as_uri()).write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"copy at .*net\.pth is corrupt.*delete it"):
        fetch((tmp_path / "net.pth").as_uri())


@pytest.mark.parametrize("form", ["bare", "model", "state_dict", "module.", "safetensors", "half"])
@pytest.mark.parametrize("arch", [MOBILENET, "fasterrcnn_mobilenet_v2_fpn"])
def test_files_in_every_form(tmp_path: Path, mobilenet: dict[str, Tensor], form: str, arch: str) -> None:
    path = tmp_path / ("net.safetensors" if form == "safetensors" else "net.pth")
    if form == "safetensors":
        safetensors.torch.save_file(mobilenet, path)
    elif form == "module.":
        torch.save({f"module.{name}": tensor for name, tensor in mobilenet.items()}, path)
    elif form == "half":
        torch.save({name: t.half() if t.is_floating_point() else t for name, t in mobilenet.items()}, path)
    else:
        torch.save(mobilenet if form == "bare" else {form: mobilenet, "epoch": 3}, path)
    model = model_of(arch, str(path))
    report = load_weights(model, str(path))
    assert {"stem", "backbone"} <= {part for part, loaded, count in report.by_part if loaded == count}
    name = "features.1.conv.1.weight" if arch == MOBILENET else "backbone.body.1.conv.1.weight"
    loaded = model.state_dict()[name]
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded, mobilenet["features.1.conv.1.weight"], atol=1e-3, rtol=1e-3)


def test_a_detectors_file_is_loaded_into_a_classifier() -> None:
    detector, classifier = model_of("fasterrcnn_resnet18_fpn"), model_of("resnet18")
    report = load_state(classifier, detector.state_dict(), "detector")
    assert [part for part, loaded, count in report.by_part if loaded == count] == ["stem", "backbone"]
    assert torch.equal(classifier.layer1[0].conv1.weight, detector.backbone.body.layer1[0].conv1.weight)


def test_a_checkpoint_determines_norm_anchors_and_size(tmp_path: Path) -> None:
    description = replace(
        describe("fasterrcnn_resnet18_fpn", CLASSES, weights="none", image_size=96),
        norm="frozen",
        norm_eps=0.5,
        anchor_sizes=((8,), (16,), (32,), (64,), (128,)),
    )
    saved = build_model(description)
    tensors = {f"model.{name}": tensor for name, tensor in saved.state_dict().items()}
    tensors["optimizer.x|step"] = torch.ones(())
    header = {"schema": 1, "model": description.to_dict()}
    safetensors.torch.save_file(tensors, tmp_path / "best.safetensors", metadata={"detseg": json.dumps(header)})
    assert set(read_state_dict(tmp_path)) == set(saved.state_dict())  # for a run folder, the best checkpoint is used
    again = describe("fasterrcnn_resnet18_fpn", CLASSES, weights=str(tmp_path))
    assert again == description
    model: Any = build_model(again)
    report = load_weights(model, str(tmp_path))
    assert not report.missing
    assert not report.mismatched
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in model.state_dict().items())
    sized = describe("fasterrcnn_resnet18_fpn", CLASSES, weights=str(tmp_path), image_size=64)
    assert (sized.preprocessing.min_size, sized.anchor_sizes) == (64, description.anchor_sizes)
    other = describe("maskrcnn_resnet18_fpn", CLASSES, weights=str(tmp_path))
    assert (other.norm_eps, other.anchor_sizes) == (0.5, description.anchor_sizes), "its RPN is the same"
    assert other.preprocessing.min_size == 800
    deeper = describe("fasterrcnn_resnet34_fpn", CLASSES, weights=str(tmp_path))
    assert deeper.anchor_sizes is None


@pytest.mark.parametrize(("counters", "norm"), [(True, ("batch", 1e-5)), (False, ("frozen", 0.0))])
def test_the_norm_of_a_torchvision_file_is_recognised(tmp_path: Path, counters: bool, norm: Any) -> None:
    state = {"backbone.body.bn1.weight": torch.ones(64)}
    if counters:
        state["backbone.body.bn1.num_batches_tracked"] = torch.tensor(1)
    torch.save(state, tmp_path / "net.pth")
    description = describe("maskrcnn_resnet50_fpn", CLASSES, weights=str(tmp_path / "net.pth"))
    assert (description.norm, description.norm_eps) == norm


def test_a_file_of_another_network_is_refused(mobilenet: dict[str, Tensor]) -> None:
    resnet34 = torchvision.models.resnet34(weights=None).state_dict()
    with pytest.raises(DataError, match=r"do not match resnet50, first layer1.0.conv1.weight: \[64, 64, 3, 3\]"):
        load_state(model_of("resnet50"), resnet34, "file")
    with pytest.raises(DataError, match=r"do not match resnet34, first .*missing in the file"):
        load_state(model_of("resnet34"), torchvision.models.resnet18(weights=None).state_dict(), "file")
    with pytest.raises(DataError, match="none of its 314 tensors matches fasterrcnn_resnet18_fpn"):
        load_state(model_of("fasterrcnn_resnet18_fpn"), mobilenet, "file")


def test_invalid_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with pytest.raises(FileNotFoundError, match=r"net\.pth: no such file"):
        read_state_dict(path)
    for content, message in (
        ({}, "contains no tensors"),
        ([torch.ones(1)], "contains a list"),
        ({"epoch": 3}, "'epoch' is not a tensor"),
        ({"args": argparse.Namespace(lr=1)}, "pickle can run code"),
    ):
        torch.save(content, path)
        with pytest.raises(DataError, match=message):
            read_state_dict(path)
    for name in ("net.pth", "net.safetensors"):
        (tmp_path / name).write_bytes(b"not a file of torch")
        with pytest.raises(DataError, match="corrupt"):
            read_state_dict(tmp_path / name)


def test_real_weights_are_loaded_into_a_classifier_and_a_detector(shared_data: Path) -> None:
    path = str(shared_data / "weights" / "mobilenet_v2_fp16.pth")
    reference = torchvision.models.mobilenet_v2(weights=None).eval()
    reference.load_state_dict(read_state_dict(path))
    batch = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = reference.features[:18](batch)
        for arch in (MOBILENET, "maskrcnn_mobilenet_v2_fpn"):
            model = model_of(arch, path)
            assert "  loaded: stem, backbone" in load_weights(model, path).lines()
            model.eval()
            last_map = model.backbone.body(batch)["3"] if isinstance(model, Detector) else model.features[:18](batch)
            torch.testing.assert_close(last_map, expected, atol=1e-4, rtol=1e-4)
