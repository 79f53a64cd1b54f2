"""Every kind of network gives the same predictions in ONNX Runtime as in torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from detseg import Predictor
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.export.exported_file import ExportedModel, exported_content, write_exported
from detseg.export.graph import onnx_graph
from detseg.inference.agreement import Agreement, compare
from detseg.inference.onnx_backend import OnnxBackend
from detseg.keypoints import keypoint_schema
from detseg.models import OwnClassifier, build_model, describe
from detseg.models.create import create_model

pytest.importorskip("onnx", reason="export needs the package onnx")
pytest.importorskip("onnxruntime", reason="exported files need the package onnxruntime")

CLASSES = ClassMap(("ant", "bee", "cat"), (7, 3, 90))
SIZES = [(80, 130), (200, 90), (96, 96), (64, 220), (1, 1)]
FIELDS = (LabelField("colour", ClassMap(("red", "blue"))), LabelField("shape", ClassMap(("disc", "ring", "square"))))


def image(seed: int, size_hw: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    return cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


def spread(model: Any, factor: float) -> None:
    """Give norm layers the statistics of images, and random output layers that give different scores."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
    side = model.preprocessing.min_size
    model.forward_tensors(torch.from_numpy(image(0, (side, side))).permute(2, 0, 1))
    model.eval()
    generator = torch.Generator().manual_seed(0)
    for name in model.last_layers():
        layers = model.get_submodule(name).named_parameters() if name in dict(model.named_modules()) else ()
        for weight, parameter in layers:
            is_class = "cls" in name + weight or "classification" in name
            std = factor if is_class or "classifier" in name else 0.01
            values = torch.randn(parameter.shape, generator=generator) * std
            parameter.data.copy_(torch.zeros_like(values) if "bias" in weight else values)


def differences(model: Any, folder: Path) -> Agreement:
    """How the exported file differs from ``model`` for images of several sizes."""
    checkpoint, file = folder / "weights", folder / "model.onnx"
    checkpoint.write_bytes(b"")
    described = ExportedModel.of(model.description, checkpoint=checkpoint, weights_licence="")
    write_exported(file, exported_content(onnx_graph(model), described))
    original, exported = Predictor(model, "cpu"), Predictor(file, "cpu")
    assert repr(exported) == repr(original)
    total = Agreement()
    for seed, size in enumerate(SIZES):
        total += compare(original(image(seed, size)), exported(image(seed, size)), str(size), model.description)
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "factor"),
    [
        ("fasterrcnn_mobilenet_v2_fpn_slim", 0.1),
        ("fasterrcnn_resnet18_fpn", 0.1),
        ("maskrcnn_mobilenet_v2_fpn_slim", 0.1),
        ("keypointrcnn_mobilenet_v2_fpn_slim", 0.1),
        ("retinanet_mobilenet_v2_fpn_slim", 0.05),
        ("fcos_mobilenet_v2_fpn_slim", 0.3),
        ("ssdlite320_mobilenet_v3_large", 0.1),
    ],
)
def test_detectors(arch: str, factor: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    keypoints = keypoint_schema(["head", "tail"]) if arch.startswith("keypoint") else None
    size = None if arch.startswith("ssd") else 96
    description = describe(arch, CLASSES, weights="none", image_size=size, keypoints=keypoints, detections_per_image=20)
    model = build_model(description).eval()
    spread(model, factor)
    total = differences(model, tmp_path)
    assert total.is_within_tolerance, total
    assert total.compared >= 20, total


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["maskrcnn_mobilenet_v2_fpn_slim", "keypointrcnn_mobilenet_v2_fpn_slim",
                                  "fcos_mobilenet_v2_fpn_slim"])  # fmt: skip
def test_without_detections(arch: str, tmp_path: Path) -> None:
    keypoints = keypoint_schema(["head", "tail"]) if arch.startswith("keypoint") else None
    description = describe(arch, CLASSES, weights="none", image_size=64, keypoints=keypoints)
    total = differences(build_model(replace(description, score_threshold=0.9999)).eval(), tmp_path)
    assert (total.compared, total.ties, total.unmatched) == (0, 0, 0)
    prediction = Predictor(tmp_path / "model.onnx")(image(0, (50, 60)))
    assert prediction.boxes.shape == (0, 4)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "label_fields", [pytest.param((), marks=pytest.mark.slow), FIELDS], ids=["one class", "label fields"]
)
def test_classifiers(label_fields: tuple[LabelField, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    classes = joined(label_fields) if label_fields else CLASSES
    description = describe("mobilenet_v3_small", classes, weights="none", image_size=64, label_fields=label_fields)
    model = build_model(description).eval()
    spread(model, 0.02)
    total = differences(model, tmp_path)
    assert total.is_within_tolerance, total
    assert total.compared == len(SIZES)
    outputs = [np.concatenate([part.probabilities for part in parts]) for parts in predicted(tmp_path)]
    assert np.ptp(outputs, axis=0).max() > 0.01, "control: the images give different results"
    assert [len(part.probabilities) for part in predicted(tmp_path)[0]] == ([2, 3] if label_fields else [3])
    with pytest.raises(DataError, match="cannot run it on an input of 65 x 64 pixels"):
        OnnxBackend(tmp_path / "model.onnx", "cpu")([image(0, (64, 65))])


def predicted(folder: Path) -> list[list[Any]]:
    """The predictions for two images, field by field."""
    predictor = Predictor(folder / "model.onnx")
    outputs: list[Any] = [predictor(image(seed, (70, 90))) for seed in range(2)]
    return [list(output.fields.values()) if predictor.label_fields else [output] for output in outputs]


def test_own_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    assert differences(OwnClassifier(network, CLASSES, image_size=32).eval(), tmp_path).is_within_tolerance


@pytest.mark.slow
def test_timm_backbone(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="the package timm is not installed")
    torch.manual_seed(0)
    model = create_model("fasterrcnn", CLASSES, backbone="timm:resnet10t", weights="none", image_size=64).model.eval()
    spread(model, 0.1)
    assert differences(model, tmp_path).is_within_tolerance
