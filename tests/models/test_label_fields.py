"""Classifiers with several label fields: one loss and one prediction per field, with one backbone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.models import Classifier, ModelDescription, build_model, describe, load_weights, part_table

FIELDS = (LabelField("colour", ClassMap(("red", "blue"))), LabelField("shape", ClassMap(("a", "b", "c"))))


def classifier(arch: str = "resnet18") -> Classifier:
    torch.manual_seed(0)
    model = build_model(describe(arch, joined(FIELDS), weights="none", image_size=64, label_fields=FIELDS))
    assert isinstance(model, Classifier)
    return model


def targets(*rows: tuple[int, ...]) -> list[dict[str, Tensor]]:
    return [{"class_index": torch.tensor(row), "image_id": torch.tensor(40 + i)} for i, row in enumerate(rows)]


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small"])
def test_losses_and_probabilities_of_each_field(small: Any, arch: str) -> None:
    model = classifier(arch)
    images, _ = small.batch([(64, 64)] * 3)
    model.eval()
    logits = model.head(model.pooled_features(images)).detach()
    predictions = model(images)
    assert [list(p.fields) for p in predictions] == [["colour", "shape"]] * 3
    for name, part in (("colour", logits[:, :2]), ("shape", logits[:, 2:])):
        np.testing.assert_allclose([p[name].probabilities for p in predictions], part.softmax(1), atol=1e-6)

    rows = [(0, -1), (1, 2), (-1, 0)]
    torch.manual_seed(2)  # MobileNets have dropout
    losses = model.train()(images, targets(*rows))
    assert list(losses) == ["loss_colour", "loss_shape"]
    torch.manual_seed(2)
    logits = model.head(model.pooled_features(images))
    expected = torch.nn.functional.cross_entropy(logits[:2, :2], torch.tensor([0, 1]))
    assert losses["loss_colour"].item() == pytest.approx(expected.item(), rel=1e-5)
    expected = torch.nn.functional.cross_entropy(logits[1:, 2:], torch.tensor([2, 0]))
    assert losses["loss_shape"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_field_without_any_label_has_no_gradient(small: Any) -> None:
    model = classifier()
    images, _ = small.batch([(64, 64)] * 2)
    losses = model(images, targets((-1, 0), (-1, 2)))
    assert losses["loss_colour"].item() == 0
    assert losses["loss_shape"].item() > 0
    losses["loss_colour"].backward(retain_graph=True)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    losses["loss_shape"].backward()
    gradient = model.get_submodule("fc").weight.grad
    assert not gradient[:2].any()
    assert gradient[2:].any()


def test_the_head_is_one_randomly_initialized_layer(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(weights=None)
    torch.save(reference.state_dict(), tmp_path / "imagenet.pth")
    model = classifier()
    assert list(model.state_dict()) == list(reference.state_dict())
    assert model.state_dict()["fc.weight"].shape == (5, 512)
    report = load_weights(model, str(tmp_path / "imagenet.pth"))
    assert "  randomly initialized: head" in report.lines()
    assert "    different shape: fc.weight [1000, 512], model [5, 512]" in report.lines()
    assert [part.name for part in part_table(model)] == ["stem", "backbone", "head"]


def test_description_round_trip() -> None:
    description = classifier().description
    again = ModelDescription.from_dict(json.loads(json.dumps(description.to_dict())))
    assert again == description
    assert again.label_fields == FIELDS
    old = {key: value for key, value in description.to_dict().items() if key != "label_fields"}
    assert ModelDescription.from_dict(old).label_fields == ()


@pytest.mark.parametrize(
    "changes", [{"class_map": ClassMap(("red", "blue"))}, {"task": "detect"}, {"label_fields": FIELDS[::-1]}]
)
def test_fields_and_classes_agree(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="are for classifiers"):
        replace(classifier().description, **changes)


@pytest.mark.parametrize(
    ("wrong_targets", "message"),
    [
        (targets((0, 0)), "one target per image"),
        (targets((0, 0), (0, 3)), r"image_id 41: class_index 3 of shape is outside 0\.\.2; use -1 for no label"),
        (targets((0, 0), (2, 0)), r"class_index 2 of colour is outside 0\.\.1"),
        (targets((0, 0), (0, -2)), "class_index -2 of shape"),
        (targets((0,), (0,)), r"an int64 tensor \[2\] is required"),
        ([{"class_index": torch.tensor(1)}] * 2, r"an int64 tensor \[2\] is required"),
        ([{"class_index": torch.zeros(2)}] * 2, r"an int64 tensor \[2\] is required"),
    ],
)
def test_wrong_targets_are_refused(small: Any, wrong_targets: Any, message: str) -> None:
    images, _ = small.batch([(64, 64)] * 2)
    with pytest.raises(DataError, match=message):
        classifier()(images, wrong_targets)
