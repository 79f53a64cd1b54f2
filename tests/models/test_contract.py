"""Test the contract of all models. A new model needs only a class of a few lines; see the end of this file."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detseg.errors import DataError
from detseg.export.heatmaps import decode_heatmaps
from detseg.keypoints import keypoint_schema
from detseg.models import LEVELS, ModelDescription, build_model, describe, freeze, losses_in_eval_mode
from detseg.postprocess import finish
from detseg.structures import ClassPrediction, Prediction, RawPrediction

SIZES = [(64, 96), (96, 64)]
ODD_SIZES = [(1, 1), (1, 300), (300, 1), (33, 31), (64, 96)]


class ModelContract:
    """The contract tests for the model ``arch``.

    Attributes:
        arch: name of the model.
        changes: changes to its description, to make it fast.
        losses: names of its losses.
        sizes: image sizes of a batch for training.
        wrong_label: key of the target, a value that must be refused, and the valid range in the error message.
    """

    arch: ClassVar[str]
    changes: ClassVar[dict[str, Any]] = {}
    losses: ClassVar[set[str]]
    sizes: ClassVar[list[tuple[int, int]]] = SIZES
    wrong_label: ClassVar[tuple[str, int, str]] = ("labels", 4, r"1\.\.3")
    _built: ClassVar[dict[str, nn.Module]] = {}

    def description(self, small: Any) -> ModelDescription:
        described = describe(self.arch, small.classes, weights="none", image_size=96, detections_per_image=20)
        return replace(described, **{"score_threshold": 0.0, **self.changes})

    def model(self, small: Any) -> Any:
        """Return a new model for each test, with norm statistics that match its random weights."""
        if self.arch not in self._built:
            torch.manual_seed(0)
            model: Any = build_model(self.description(small))
            momenta = {m: m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
            for norm in momenta:
                norm.momentum = 1.0
            with torch.no_grad():
                model(*self.batch(small))
            for norm, momentum in momenta.items():
                norm.momentum = momentum
            self._built[self.arch] = model
        return deepcopy(self._built[self.arch])

    def batch(self, small: Any, instances: list[int] | None = None) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        images, targets = small.batch(self.sizes, instances)
        return images, self.prepared(targets)

    def prepared(self, targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Add what this model needs in targets besides boxes, labels and masks."""
        return targets

    def levels(self, model: Any) -> list[str]:
        return [level for level in LEVELS if level == "none" or level in model.parts()]

    # The contract.

    def test_it_is_built_from_its_json_and_its_parts_cover_it(self, small: Any) -> None:
        model = self.model(small)
        again = ModelDescription.from_dict(json.loads(json.dumps(model.description.to_dict())))
        assert again == model.description
        assert {model.part_of(name) for name in model.state_dict()} == set(model.parts())
        assert model.preprocessing == model.description.preprocessing

    def test_losses_are_flat_finite_and_reach_every_parameter(self, small: Any) -> None:
        model = self.model(small)
        losses = model(*self.batch(small, [2, 1]))
        assert set(losses) == self.losses == set(model.loss_names())
        assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
        assert without == []

    @pytest.mark.parametrize("instances", [[0, 0], [0, 2]])
    def test_negative_images_have_the_same_losses(self, small: Any, instances: list[int]) -> None:
        model = self.model(small)
        losses = model(*self.batch(small, instances))
        assert set(losses) == self.losses
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        assert torch.isfinite(total)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        assert all(torch.isfinite(buffer).all() for buffer in model.buffers())

    def test_tensors_for_export_are_those_of_the_prediction(self, small: Any) -> None:
        model = self.model(small).eval()
        image = self.batch(small)[0][0]
        (prediction,) = model([image])
        tensors = {name: value.numpy() for name, value in model.forward_tensors(image).items()}
        if isinstance(prediction, RawPrediction):
            masks, heatmaps = tensors.pop("masks", None), tensors.pop("heatmaps", None)
            keypoints = None if heatmaps is None else decode_heatmaps(heatmaps, tensors["boxes"])
            assert (masks is None, keypoints is None) == (prediction.mask_probs is None, prediction.keypoints is None)
            if masks is not None:
                np.testing.assert_array_equal(masks, prediction.mask_probs)
            if keypoints is not None:
                np.testing.assert_allclose(keypoints, prediction.keypoints, atol=1e-3)
            assert len(prediction.scores) > 0
        else:
            parts = [prediction] if isinstance(prediction, ClassPrediction) else prediction.fields.values()
            prediction = ClassPrediction(np.concatenate([part.probabilities for part in parts]))
        for name, value in tensors.items():
            np.testing.assert_array_equal(value, getattr(prediction, name))

    def test_predictions(self, small: Any) -> None:
        model = self.model(small).eval()
        images, _ = self.batch(small)
        predictions = model(images)
        assert len(predictions) == len(images)
        for image, prediction in zip(images, predictions, strict=True):
            self.check_prediction(prediction, (image.shape[1], image.shape[2]))

    def test_predictions_are_not_empty(self, small: Any) -> None:
        images, _ = self.batch(small)
        assert sum(len(prediction.scores) for prediction in self.model(small).eval()(images)) > 0

    def check_prediction(self, prediction: Any, size_hw: tuple[int, int]) -> None:
        assert isinstance(prediction, RawPrediction)
        count = len(prediction.scores)
        assert count <= 20
        assert (prediction.boxes.dtype, prediction.boxes.shape) == (np.float32, (count, 4))
        assert (prediction.labels.dtype, prediction.labels.shape) == (np.int64, (count,))
        assert (prediction.scores.dtype, prediction.scores.shape) == (np.float32, (count,))
        assert np.isin(prediction.labels, [1, 2, 3]).all()
        assert np.all(np.diff(prediction.scores) <= 0)
        assert ((prediction.scores >= 0) & (prediction.scores <= 1)).all()
        assert np.isfinite(prediction.boxes).all()
        assert (prediction.boxes >= 0).all()
        assert (prediction.boxes <= [size_hw[1], size_hw[0]] * 2).all()
        assert (prediction.boxes[:, :2] <= prediction.boxes[:, 2:]).all()
        assert (prediction.mask_probs is not None) == ("loss_mask" in self.losses)
        if prediction.mask_probs is not None:
            assert (prediction.mask_probs.dtype, prediction.mask_probs.shape) == (np.float32, (count, 28, 28))

    def test_uint8_and_float_images_are_the_same(self, small: Any) -> None:
        model = self.model(small).eval()
        images, _ = self.batch(small)
        assert_close(model(images)[0], model([image / 255 for image in images])[0], 0)

    def test_batch_mates_do_not_matter(self, small: Any) -> None:
        model = self.model(small).eval()
        images, _ = small.batch([*self.sizes, self.sizes[0]])
        together = model(images)
        for image, prediction in zip(images, together, strict=True):
            assert_close(model([image])[0], prediction, 1e-3)

    @pytest.mark.parametrize("size_hw", ODD_SIZES)
    def test_odd_sizes(self, small: Any, size_hw: tuple[int, int]) -> None:
        model = self.model(small).eval()
        regular, _ = self.batch(small)
        before = model(regular)[0]
        images, targets = small.batch([size_hw], [0 if min(size_hw) == 1 else 1])
        self.check_prediction(model(images)[0], size_hw)
        assert_close(model(regular)[0], before, 0)  # the odd size changes nothing
        freeze(model, "backbone")  # a single tiny image is not enough for trainable norm layers
        model.train()
        losses = model(images, self.prepared(targets))
        assert all(torch.isfinite(loss) for loss in losses.values())

    @pytest.mark.parametrize("level", LEVELS)
    def test_freezing_survives_train(self, small: Any, level: str) -> None:
        model = self.model(small)
        levels = self.levels(model)
        if level not in levels:
            with pytest.raises(DataError, match=f"known levels: {', '.join(levels)}"):
                freeze(model, level)
            return
        freeze(model, level)
        frozen = set(levels[1 : levels.index(level) + 1])
        nn.Sequential(model).train()  # a parent's train() must not unfreeze anything
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        losses = model(*self.batch(small, [2, 1]))
        torch.stack(list(losses.values())).sum().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is None) == (model.part_of(name) in frozen), name
        changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
        moved = {model.part_of(name) for name in changed}
        assert not moved & frozen
        if level == "none" and any(isinstance(m, nn.BatchNorm2d) for m in model.modules()):
            assert moved  # control: norm statistics that are not frozen change

    def test_a_reloaded_model_has_bit_equal_predictions(self, small: Any) -> None:
        model = self.model(small).eval()
        again = build_model(ModelDescription.from_dict(model.description.to_dict())).eval()
        images, _ = self.batch(small)
        assert not equal(again(images)[0], model(images)[0])  # control: other random weights
        again.load_state_dict(model.state_dict())
        assert_close(again(images)[0], model(images)[0], 0)

    def test_a_validation_loss_does_not_change_the_model(self, small: Any) -> None:
        model = self.model(small).eval()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with losses_in_eval_mode(model):
            losses = model(*self.batch(small))
        assert set(losses) == self.losses
        assert not model.training
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    def test_finish_gives_original_pixels(self, small: Any) -> None:
        model = self.model(small).eval()
        geometry = model.preprocessing.geometry((37, 150))
        images, _ = small.batch([geometry.network_hw])
        raw = model(images)[0]
        prediction = finish(raw, geometry)
        assert isinstance(prediction, Prediction)
        assert prediction.size_hw == (37, 150)
        scale = np.array([150, 37] * 2) / np.array([*geometry.resized_hw[::-1]] * 2)
        np.testing.assert_allclose(prediction.boxes, raw.boxes * scale, atol=1e-2)
        assert prediction.masks().shape == (len(raw.scores), 37, 150)

    def test_invalid_targets_are_refused(self, small: Any) -> None:
        model = self.model(small)
        images, targets = self.batch(small)
        with pytest.raises(DataError, match="targets"):
            model(images)
        key, wrong, valid_range = self.wrong_label
        targets[0][key] = torch.full_like(targets[0][key], wrong)
        with pytest.raises(DataError, match=rf"image_id 100.*outside {valid_range}"):
            model(images, targets)


def equal(first: Any, second: Any) -> bool:
    try:
        assert_close(first, second, 0)
    except AssertionError:
        return False
    return True


def assert_close(first: Any, second: Any, tolerance: float) -> None:
    """Check that two predictions are equal up to ``tolerance``; 0 means bit-equal."""
    for name in ("labels", "boxes", "scores", "mask_probs", "keypoints", "probabilities"):
        a, b = getattr(first, name, None), getattr(second, name, None)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, atol=tolerance, rtol=0)


RPN = {
    "rois_per_image": 16,
    "rpn_pre_nms_top_n": (50, 40),
    "rpn_post_nms_top_n": (30, 20),
}
"""Small numbers of proposals."""

TWO_STAGE = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}


class TestFasterRCNN(ModelContract):
    arch = "fasterrcnn_mobilenet_v2_fpn_slim"
    changes: ClassVar = RPN
    losses: ClassVar = TWO_STAGE


class TestMaskRCNN(ModelContract):
    arch = "maskrcnn_mobilenet_v3_large_fpn_slim"
    changes: ClassVar = RPN
    losses: ClassVar = TWO_STAGE | {"loss_mask"}


class TestKeypointRCNN(ModelContract):
    arch = "keypointrcnn_mobilenet_v2_fpn_slim"
    changes: ClassVar = RPN
    losses: ClassVar = TWO_STAGE | {"loss_keypoint"}

    def description(self, small: Any) -> ModelDescription:
        schema = keypoint_schema(["left", "right", "top"])
        described = describe(self.arch, small.classes, weights="none", image_size=96, keypoints=schema)
        return replace(described, score_threshold=0.0, detections_per_image=20, **self.changes)

    def prepared(self, targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Three points on the diagonal of each box; the last one is not labelled."""
        return [{**target, "keypoints": self.points(target["boxes"])} for target in targets]

    def points(self, boxes: Tensor) -> Tensor:
        shares = torch.tensor([0.2, 0.5, 0.8])
        xy = boxes[:, None, :2] + shares[:, None] * (boxes[:, None, 2:] - boxes[:, None, :2])
        visibility = torch.tensor([2.0, 1.0, 0.0]).view(1, 3, 1).expand(len(boxes), 3, 1)
        return torch.cat([xy, visibility], dim=2) * (visibility > 0)

    def check_prediction(self, prediction: Any, size_hw: tuple[int, int]) -> None:
        super().check_prediction(prediction, size_hw)
        assert prediction.keypoints.dtype == np.float32
        assert prediction.keypoints.shape == (len(prediction.scores), 3, 3)
        assert np.isfinite(prediction.keypoints).all()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed (pip install 'detseg[timm]')")
class TestTimmBackbone(ModelContract):
    arch = "fasterrcnn_timm:test_resnet"
    changes: ClassVar = RPN
    losses: ClassVar = TWO_STAGE


class TestSSDLite(ModelContract):
    arch = "ssdlite320_mobilenet_v3_large"
    losses: ClassVar = {"loss_classifier", "loss_box_reg"}
    sizes: ClassVar = [(96, 96), (96, 96)]


class TestRetinaNet(ModelContract):
    arch = "retinanet_mobilenet_v2_fpn_slim"
    losses: ClassVar = {"loss_classifier", "loss_box_reg"}


class TestFCOS(ModelContract):
    arch = "fcos_mobilenet_v2_fpn_slim"
    losses: ClassVar = {"loss_classifier", "loss_box_reg", "loss_centerness"}


class TestClassifier(ModelContract):
    """A classifier, whose predictions and targets have other types."""

    arch = "mobilenet_v3_small"
    losses: ClassVar = {"loss_classifier"}
    sizes: ClassVar = [(96, 96), (96, 96)]
    wrong_label: ClassVar = ("class_index", 3, r"0\.\.2")

    def prepared(self, targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        return [{**target, "class_index": torch.tensor(index % 3)} for index, target in enumerate(targets)]

    def check_prediction(self, prediction: Any, size_hw: tuple[int, int]) -> None:
        assert isinstance(prediction, ClassPrediction)
        assert (prediction.probabilities.dtype, prediction.probabilities.shape) == (np.float32, (3,))
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert 0 <= prediction.class_index < 3

    def test_predictions_are_not_empty(self, small: Any) -> None:
        assert len(self.model(small).eval()(self.batch(small)[0])) == 2

    test_finish_gives_original_pixels = None  # a class has no pixel coordinates


@pytest.mark.slow
class TestRetinaNetV2(ModelContract):
    arch = "retinanet_resnet50_fpn_v2"
    losses: ClassVar = {"loss_classifier", "loss_box_reg"}


@pytest.mark.slow
class TestFCOSResNet50(ModelContract):
    arch = "fcos_resnet50_fpn"
    losses: ClassVar = {"loss_classifier", "loss_box_reg", "loss_centerness"}
