"""Test Keypoint R-CNN against torchvision's own; no visible keypoint, other keypoints, other weight files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torchvision.models import detection

from detseg.checkpoints.checkpoint import load, save_checkpoint
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import COCO_NAMES, KeypointSchema, keypoint_schema
from detseg.models import (
    MODELS,
    Detector,
    ModelDescription,
    build_model,
    describe,
    freeze,
    load_weights,
    losses_in_eval_mode,
)
from detseg.models.input_checks import check_targets
from detseg.models.weights import load as weights_module
from detseg.models.weights import starting_weights

SCHEMA = keypoint_schema(["nose", "left_eye", "right_eye"], [(0, 1), (0, 2)])
FACE = ClassMap.from_names(["face"])
SLIM = "keypointrcnn_mobilenet_v3_large_fpn_slim"
LOSSES = {"loss_classifier", "loss_box_reg", "loss_keypoint", "loss_objectness", "loss_rpn_box_reg"}


@pytest.fixture
def model(small: Any) -> Detector:
    detector: Detector = small.detector(SLIM, keypoints=SCHEMA)
    return detector


def batch(
    small: Any, sizes_hw: list[tuple[int, int]], instances: list[int] | None = None, visibility: float = 2
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The standard batch with three keypoints in every box."""
    images, targets = small.batch(sizes_hw, instances)
    for target in targets:
        boxes = target["boxes"]
        shares = torch.tensor([[0.5, 0.3], [0.3, 0.7], [0.7, 0.7]])
        points = boxes[:, None, :2] + shares * (boxes[:, None, 2:] - boxes[:, None, :2])
        target["keypoints"] = torch.cat([points, torch.full((len(boxes), 3, 1), visibility)], dim=2)
    return images, targets


def torchvisions(model: Detector) -> Any:
    reference = detection.KeypointRCNN(model.backbone, num_classes=4, num_keypoints=3)
    reference.rpn, reference.roi_heads = model.rpn, model.roi_heads
    reference.transform.resize = lambda image, target: (image, target)
    return reference.train(model.training)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("keypointrcnn_")])
def test_every_backbone_has_both_a_mask_and_a_keypoint_rcnn(name: str, small: Any) -> None:
    assert name.replace("keypoint", "mask") in MODELS
    assert name != SLIM or describe(name, small.classes, weights="imagenet", keypoints=SCHEMA).task == "keypoints"
    with pytest.raises(DataError, match=f"{name}: the task is keypoints.*keypoints=table.keypoint_schema"):
        describe(name, small.classes, weights="none")


def test_losses_equal_torchvisions(model: Detector, small: Any) -> None:
    images, targets = batch(small, [(96, 64), (64, 128)])
    torch.manual_seed(3)
    losses = model(images, targets)
    reference = torchvisions(model)
    torch.manual_seed(3)
    expected = reference([image / 255 for image in images], targets)
    assert set(losses) == set(expected) == LOSSES
    for name in expected:
        assert losses[name].item() == pytest.approx(expected[name].item(), rel=1e-5)


@torch.no_grad()
def test_predictions_equal_torchvisions(small: Any) -> None:
    model = small.detector(SLIM, keypoints=SCHEMA, score_threshold=0.0).eval()
    images, _ = batch(small, [(96, 64), (64, 128), (70, 90)])
    for image, prediction in zip(images, model(images), strict=True):
        reference = torchvisions(model)([image / 255])[0]
        assert prediction.keypoints.shape == (len(prediction.scores), 3, 3)
        assert prediction.keypoints.dtype == np.float32
        assert len(prediction.scores)
        np.testing.assert_allclose(prediction.keypoints[..., :2], reference["keypoints"][..., :2], atol=1e-2)
        np.testing.assert_allclose(prediction.keypoints[..., 2], reference["keypoints_scores"].sigmoid(), atol=1e-4)
        assert prediction.mask_probs is None


@pytest.mark.parametrize("level", ["none", "rpn"])
@pytest.mark.parametrize(("instances", "visibility"), [([0, 0], 2), ([1, 0], 0), ([1, 2], 0), ([1, 2], 1), ([1, 2], 2)])
def test_every_batch_has_the_keypoint_loss(
    model: Detector, small: Any, instances: list[int], visibility: float, level: str
) -> None:
    freeze(model, level)
    losses = model(*batch(small, [(64, 64), (64, 96)], instances, visibility))
    assert set(losses) == (LOSSES if level == "none" else {"loss_classifier", "loss_box_reg", "loss_keypoint"})
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.roi_heads.parameters())
    assert (losses["loss_keypoint"].item() > 0) == (visibility > 0 and sum(instances) > 0)


def test_validation_loss_without_any_keypoint_is_zero(model: Detector, small: Any) -> None:
    with losses_in_eval_mode(model):
        losses = model(*batch(small, [(64, 64)], [0]))
    assert losses["loss_keypoint"].item() == 0


def test_keypoints_without_detections_keep_their_shape(small: Any) -> None:
    model = small.detector(SLIM, keypoints=SCHEMA, score_threshold=1.1).eval()
    assert model(batch(small, [(64, 64)])[0])[0].keypoints.shape == (0, 3, 3)
    odd = model(batch(small, [(1, 1)], [0])[0])[0]
    assert odd.keypoints.shape == (0, 3, 3)


def test_poolers_have_fixed_scales(model: Detector) -> None:
    pooler = model.roi_heads.keypoint_roi_pool
    assert pooler.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def test_parts_include_the_keypoint_head(model: Detector) -> None:
    assert list(model.parts())[-1] == "keypoint head"
    assert {model.part_of(name) for name in model.state_dict()} == set(model.parts())
    assert model.num_keypoints == 3


def test_a_checkpoint_restores_the_keypoints(model: Detector, small: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.safetensors", model)
    again = load(tmp_path / "model.safetensors")
    assert again.description == model.description
    assert again.description.keypoints == SCHEMA
    images, _ = batch(small, [(64, 64)])
    expected, actual = model.eval()(images)[0], again(images)[0]
    np.testing.assert_array_equal(expected.keypoints, actual.keypoints)


def test_descriptions_without_keypoints_can_be_loaded(small: Any) -> None:
    old = describe("fasterrcnn_mobilenet_v3_large_fpn_slim", small.classes, weights="none").to_dict()
    del old["keypoints"]
    assert ModelDescription.from_dict(json.loads(json.dumps(old))).keypoints is None
    new = describe(SLIM, small.classes, weights="none", keypoints=SCHEMA)
    assert ModelDescription.from_dict(json.loads(json.dumps(new.to_dict()))) == new
    for wrong in ({"names": ["a"], "colours": []}, ["a"], {}):
        with pytest.raises(DataError, match="keypoints"):
            ModelDescription.from_dict({**new.to_dict(), "keypoints": wrong})
    with pytest.raises(DataError, match="no other model accepts one"):
        describe("fasterrcnn_resnet18_fpn", small.classes, weights="none", keypoints=SCHEMA)


# Published weights


def test_the_published_model_has_the_same_tensors(small: Any) -> None:
    with torch.device("meta"):
        reference = detection.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
        description = describe(
            "keypointrcnn_resnet50_fpn", small.classes, weights="coco", keypoints=keypoint_schema(COCO_NAMES)
        )
        state = build_model(description).state_dict()
    assert description.norm_eps == 0.0
    shapes = {name: tensor.shape for name, tensor in state.items() if "box_predictor" not in name}
    ignored = ("box_predictor", "num_batches_tracked")
    assert shapes == {n: t.shape for n, t in reference.items() if not any(word in n for word in ignored)}


PREDICTOR = {f"roi_heads.keypoint_predictor.kps_score_lowres.{name}" for name in ("weight", "bias")}


@pytest.fixture
def coco_file(small: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Simulate a download of 17-keypoint weights for the slim model."""
    state = small.detector(SLIM, keypoints=keypoint_schema(COCO_NAMES)).state_dict()
    state = {name: torch.full_like(tensor, 7) if name in PREDICTOR else tensor for name, tensor in state.items()}
    published = replace(MODELS[SLIM], coco=detection.KeypointRCNN_ResNet50_FPN_Weights.COCO_V1)
    monkeypatch.setitem(MODELS, SLIM, published)
    monkeypatch.setattr(starting_weights, "fetch", lambda *urls: dict(state))
    return dict(state)


@pytest.mark.parametrize(
    ("names", "loaded", "line"),
    [
        (COCO_NAMES, True, "loaded: stem, backbone, neck, rpn, box head, keypoint head"),
        (tuple(name.title() for name in COCO_NAMES), True, "keypoint head"),
        (tuple(reversed(COCO_NAMES)), False, "randomly initialized: 2 of 18 tensors of keypoint head"),
        (tuple(f"point {i}" for i in range(17)), False, "randomly initialized: 2 of 18 tensors of keypoint head"),
        (("nose", "left_eye", "right_eye"), False, "randomly initialized: 2 of 18 tensors of keypoint head"),
    ],
)
def test_the_predictor_is_loaded_only_for_the_same_keypoints(
    names: tuple[str, ...], loaded: bool, line: str, small: Any, coco_file: dict[str, Tensor]
) -> None:
    detector = small.detector(SLIM, keypoints=keypoint_schema(names))
    report = load_weights(detector, "coco")
    assert set(report.loaded).issuperset(PREDICTOR) == loaded
    assert line in "\n".join(report.lines())
    assert bool((detector.roi_heads.keypoint_predictor.kps_score_lowres.weight == 7).all()) == loaded
    weight = detector.state_dict()["roi_heads.keypoint_head.0.weight"]
    assert torch.equal(weight, coco_file["roi_heads.keypoint_head.0.weight"])


def test_files_with_and_without_keypoint_names(model: Detector, small: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "own.safetensors", model)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "plain.safetensors")
    other = small.detector(SLIM, keypoints=keypoint_schema(["a", "b", "c"]))
    assert not PREDICTOR & set(load_weights(other, str(tmp_path / "own.safetensors")).loaded)
    assert set(load_weights(other, str(tmp_path / "plain.safetensors")).loaded) >= PREDICTOR  # only the shape is known
    same = small.detector(SLIM, keypoints=SCHEMA)
    assert set(load_weights(same, str(tmp_path / "own.safetensors")).loaded) >= PREDICTOR


def test_a_faster_rcnn_file_has_everything_but_the_keypoint_head(model: Detector, small: Any) -> None:
    faster = small.detector("fasterrcnn_mobilenet_v3_large_fpn_slim")
    report = weights_module.load_state(model, faster.state_dict(), "a file")
    assert "  randomly initialized: keypoint head" in report.lines()
    assert not report.mismatched


# Input checks

IMAGE = torch.zeros(3, 20, 30, dtype=torch.uint8)


def keypoint_tensor(*shape: int, dtype: torch.dtype = torch.float32, value: float = 1.0) -> Tensor:
    return torch.full(shape, value, dtype=dtype)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_valid_keypoints_pass(n: int) -> None:
    target = {"boxes": torch.tensor([[1.0, 2, 3, 4]] * n).reshape(n, 4), "labels": torch.ones(n, dtype=torch.int64)}
    check_targets([IMAGE], [{**target, "keypoints": keypoint_tensor(n, 3, 3)}], num_labels=2, masks=False, keypoints=3)
    check_targets([IMAGE], [target], num_labels=2, masks=False)


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        (None, "no 'keypoints'"),
        (keypoint_tensor(1, 5, 3), r"float32 \[1, 5, 3\]; float32 \[1, 3, 3\] is required.*built for 3 points"),
        (keypoint_tensor(2, 3, 3), r"\[2, 3, 3\]"),
        (keypoint_tensor(1, 3, 2), r"\[1, 3, 2\]"),
        (keypoint_tensor(1, 3, 3, dtype=torch.float64), "torch.float64"),
        (keypoint_tensor(1, 3, 3, value=float("nan")), "instance 0: a keypoint is not finite"),
        (keypoint_tensor(1, 3, 3, value=float("inf")), "not finite"),
    ],
)
def test_wrong_keypoints_are_refused_with_image_id(keypoints: Tensor | None, message: str) -> None:
    target: dict[str, Tensor] = {
        "boxes": torch.tensor([[1.0, 2, 3, 4]]),
        "labels": torch.tensor([1]),
        "image_id": torch.tensor(17),
    }
    if keypoints is not None:
        target["keypoints"] = keypoints
    with pytest.raises(DataError, match=f"image_id 17.*{message}"):
        check_targets([IMAGE], [target], num_labels=2, masks=False, keypoints=3)


def test_a_model_needs_at_least_one_keypoint() -> None:
    assert describe(SLIM, FACE, weights="none", keypoints=KeypointSchema(("a",))).keypoints is not None
    with pytest.raises(DataError, match="task is keypoints"):
        describe(SLIM, FACE, weights="none", keypoints=KeypointSchema(()))
