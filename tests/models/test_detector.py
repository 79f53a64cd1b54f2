"""Test detectors against torchvision's own; other images in a batch, tiny images, negatives, cached features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection.roi_heads import paste_masks_in_image

from detseg.errors import DataError
from detseg.models import Detector, build_model, freeze
from detseg.models.frozen_features import FrozenFeatures
from detseg.structures import RawPrediction

RCNN = ["fasterrcnn_resnet18_fpn", "maskrcnn_resnet18_fpn"]
LOSSES = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}


def torchvisions(model: Detector) -> Any:
    """An unmodified torchvision detector with the same modules, without resizing."""
    family = detection.MaskRCNN if model.has_masks else detection.FasterRCNN
    reference = family(model.backbone, num_classes=4)
    reference.rpn, reference.roi_heads = model.rpn, model.roi_heads
    reference.transform.resize = lambda image, target: (image, target)
    return reference.train(model.training)


def assert_close(first: RawPrediction, second: RawPrediction, tolerance: float) -> None:
    assert np.array_equal(first.labels, second.labels)
    for name in ("boxes", "scores", "mask_probs"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, atol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize(
    "arch", ["maskrcnn_resnet18_fpn", "maskrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v2_fpn"]
)
def test_predictions_equal_torchvisions(small: Any, arch: str) -> None:
    model = small.detector(arch, score_threshold=0.0).eval()
    images, _ = small.batch([(96, 64), (64, 128), (70, 90)])
    predictions = model(images)
    for image, prediction in zip(images, predictions, strict=True):
        reference = torchvisions(model)([image / 255])[0]
        assert 0 < len(prediction.scores) <= 5
        np.testing.assert_allclose(prediction.boxes, reference["boxes"], atol=1e-3)
        np.testing.assert_allclose(prediction.scores, reference["scores"], atol=1e-4)
        assert np.array_equal(prediction.labels, reference["labels"])
        assert np.all(np.diff(prediction.scores) <= 0)
        if model.has_masks:
            assert prediction.mask_probs.shape[1:] == (28, 28)
            probs, boxes = torch.from_numpy(prediction.mask_probs)[:, None], torch.from_numpy(prediction.boxes)
            pasted = paste_masks_in_image(probs, boxes, tuple(image.shape[1:]))
            np.testing.assert_allclose(pasted, reference["masks"], atol=1e-3)


@pytest.mark.parametrize("arch", RCNN)
def test_losses_equal_torchvisions(small: Any, arch: str) -> None:
    model = small.detector(arch)
    images, targets = small.batch([(96, 64), (64, 128)])
    torch.manual_seed(3)
    losses = model(images, targets)
    reference = torchvisions(model)
    torch.manual_seed(3)
    expected = reference([image / 255 for image in images], targets)
    assert list(losses) == list(expected)
    for name in expected:
        assert losses[name].item() == pytest.approx(expected[name].item(), rel=1e-5)


def test_a_published_architecture_equals_torchvisions(small: Any) -> None:
    reference = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=4
    ).eval()
    model = small.detector("fasterrcnn_mobilenet_v3_large_320_fpn", score_threshold=0.0).eval()
    reference.load_state_dict(model.state_dict())
    reference.roi_heads.detections_per_img, reference.roi_heads.score_thresh = 5, 0.0
    reference.rpn._pre_nms_top_n, reference.rpn._post_nms_top_n = model.rpn._pre_nms_top_n, model.rpn._post_nms_top_n
    images, _ = small.batch([(320, 320)])
    for network in (model, reference):
        network.double()  # random weights amplify rounding errors a million times
    reference.transform.image_mean = model.mean.flatten().tolist()
    reference.transform.image_std = model.std.flatten().tolist()
    with torch.no_grad():
        expected = reference([(images[0] / 255).double()])[0]
    prediction = model(images)[0]
    assert len(prediction.scores) == 5
    np.testing.assert_allclose(prediction.boxes, expected["boxes"], atol=1e-4)
    np.testing.assert_allclose(prediction.scores, expected["scores"], atol=1e-6)


def test_uint8_and_float_images_are_the_same(small: Any) -> None:
    model = small.detector().eval()
    images, _ = small.batch([(64, 64)])
    assert_close(model(images)[0], model([images[0] / 255])[0], 0)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 2000), (2000, 1), (33, 31)])
def test_any_size_works_and_changes_nothing_for_later_images(small: Any, size_hw: tuple[int, int]) -> None:
    model = small.detector("maskrcnn_resnet18_fpn").eval()
    regular, _ = small.batch([(64, 96)])
    before = model(regular)[0]
    odd, targets = small.batch([size_hw], [0])
    prediction = model(odd)[0]
    assert np.isfinite(prediction.boxes).all()
    assert (prediction.boxes >= 0).all()
    assert (prediction.boxes <= [size_hw[1], size_hw[0]] * 2).all()
    assert_close(model(regular)[0], before, 0)
    model.train()
    if max(size_hw) <= 32:  # BatchNorm needs more than one value
        with pytest.raises(DataError, match="BatchNorm"):
            model(odd, targets)
        freeze(model, "backbone")
    assert all(torch.isfinite(loss) for loss in model(odd, targets).values())


def test_control_torchvisions_pooler_keeps_wrong_scales(small: Any) -> None:
    """After one image much smaller than its padding, a torchvision model stays wrong."""
    model = small.detector().eval()
    reference = torchvisions(model)
    reference.roi_heads.box_roi_pool.scales = None
    images, _ = small.batch([(1, 1), (64, 96)])
    reference([images[0] / 255])
    assert reference.roi_heads.box_roi_pool.scales[0] != 0.25


def test_batch_mates_do_not_matter_in_eval_mode(small: Any) -> None:
    model = small.detector("maskrcnn_resnet18_fpn").eval()
    images, _ = small.batch([(40, 64), (128, 96), (60, 50)])  # the first and third share a padded size
    together = model(images)
    for image, prediction in zip(images, together, strict=True):
        assert_close(model([image])[0], prediction, 1e-3)
    assert_close(model(images[1:2])[0], together[1], 0)  # the only image of its size: bit-equal
    padded = torchvisions(model)([image / 255 for image in images])[0]  # control: padded to the largest
    alone = torchvisions(model)([images[0] / 255])[0]
    assert padded["scores"].shape != alone["scores"].shape or not torch.allclose(
        padded["scores"], alone["scores"], atol=1e-5
    )


@pytest.mark.parametrize(
    ("arch", "level"),
    [(RCNN[0], "none"), (RCNN[1], "rpn"), ("maskrcnn_resnet50_fpn_v2", "none")],
)
def test_a_batch_without_instances_has_the_same_losses(small: Any, arch: str, level: str) -> None:
    model = small.detector(arch)
    freeze(model, level)
    images, targets = small.batch([(64, 64), (64, 96)], [0, 0])
    losses = model(images, targets)
    _, with_instances = small.batch([(64, 64), (64, 96)])
    assert set(losses) == set(model(images, with_instances))
    expected = LOSSES if level == "none" else {"loss_classifier", "loss_box_reg"}
    assert set(losses) == expected | ({"loss_mask"} if model.has_masks else set())
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is not None for p in model.roi_heads.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())


def test_losses_without_any_proposal_are_finite(small: Any) -> None:
    model = small.detector(rpn_score_threshold=1.1)
    images, targets = small.batch([(64, 64)], [0])
    assert all(torch.isfinite(loss) for loss in model(images, targets).values())
    model.eval()
    assert len(model(images)[0].scores) == 0


@pytest.mark.parametrize("level", ["backbone", "neck", "rpn"])
@pytest.mark.parametrize("cached", ["backbone", "neck"])
def test_losses_from_cached_features_are_bit_equal(small: Any, level: str, cached: str) -> None:
    model = small.detector("maskrcnn_resnet18_fpn")
    freeze(model, level)
    images, targets = small.batch([(40, 64), (128, 96)])

    def losses(inputs: Any) -> dict[str, float]:
        torch.manual_seed(5)
        return {name: value.item() for name, value in model(inputs, targets).items()}

    if cached not in model.levels():
        with pytest.raises(DataError, match="cannot use features of level neck"):
            model([replace(image, level=cached) for image in model.frozen_features(images)], targets)
        return
    features = model.frozen_features(images, cached)
    assert not any(tensor.requires_grad for image in features for tensor in image.tensors().values())
    assert losses(features) == losses(images)
    assert losses([image.with_maps(torch.float16) for image in features]) != losses(images)  # control
    assert [image.proposals is not None for image in features] == [level == "rpn"] * 2
    if level == "rpn":
        assert all(len(image.proposals) <= model.description.rpn_post_nms_top_n[1] for image in features)
    for image in features:
        shuffled = dict(sorted(image.tensors().items(), reverse=True))
        assert list(FrozenFeatures.from_tensors(cached, image.size_hw, shuffled).maps) == list(image.maps)
    with pytest.raises(DataError, match="1 of 2 images of the batch are features"):
        model([images[0], features[1]], targets)
    freeze(model, "none")
    with pytest.raises(DataError, match="none, as its backbone is not frozen"):
        model(features, targets)


@pytest.mark.parametrize("level", ["backbone", "neck", "rpn"])
@pytest.mark.parametrize("sizes", [[(40, 64), (128, 96)], [(64, 64), (64, 64), (60, 50)]])
def test_predictions_from_cached_features_are_bit_equal(small: Any, level: str, sizes: Any) -> None:
    model = small.detector("maskrcnn_resnet18_fpn").eval()
    freeze(model, level)
    images, _ = small.batch(sizes)
    for cached in model.levels():
        features = model.frozen_features(images, cached)
        for actual, reference in zip(model(features), model(images), strict=True):
            assert np.array_equal(actual.boxes, reference.boxes)
            assert np.array_equal(actual.scores, reference.scores)
            assert np.array_equal(actual.mask_probs, reference.mask_probs)
            assert len(actual.scores)


def test_frozen_backbone_maps_do_not_depend_on_batch_mates(small: Any) -> None:
    model = small.detector()
    freeze(model, "rpn")
    images, targets = small.batch([(40, 64), (128, 96)])
    outputs: list[Tensor] = []
    model.backbone.body.register_forward_hook(lambda module, args, maps: outputs.append(maps["0"]))
    model(images, targets)
    model(images[:1], targets[:1])
    assert torch.equal(outputs[0], outputs[2])
    freeze(model, "none")  # control: with a trainable backbone the image is padded to the largest of the batch
    model(images, targets)
    assert outputs[-1].shape[2:] == (32, 24)


def test_the_norm_is_part_of_the_description(small: Any) -> None:
    """The same weights with other norm layers are a different function, so the description contains the norm."""
    model = small.detector(norm="frozen")
    images, _ = small.batch([(64, 64)])
    again = build_model(type(model.description).from_dict(model.description.to_dict()))
    again.load_state_dict(model.state_dict())
    wrong = build_model(replace(model.description, norm="batch"))
    wrong.load_state_dict(model.state_dict(), strict=False)
    batch = images[0][None] / 255
    expected = model.backbone.body(batch)["3"]
    assert torch.equal(again.backbone.body(batch)["3"], expected)
    assert not torch.allclose(wrong.backbone.body(batch)["3"], expected)  # control


def test_predictions_after_a_reload_are_bit_equal(small: Any) -> None:
    model = small.detector("maskrcnn_resnet18_fpn").eval()
    again = build_model(type(model.description).from_dict(model.description.to_dict())).eval()
    again.load_state_dict(model.state_dict())
    images, _ = small.batch([(64, 64)])
    assert_close(again(images)[0], model(images)[0], 0)


def test_overfitting_one_image_reduces_the_loss(small: Any) -> None:
    model = small.detector()
    freeze(model, "backbone")
    images, targets = small.batch([(64, 64)], [2])
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.005, momentum=0.9)
    totals = []
    for _ in range(14):
        loss = torch.stack(list(model(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        totals.append(loss.item())
    assert totals[-1] < 0.5 * totals[0]
