"""Detectors against torchvision's own, and what that leaves open: batch-mates, tiny images, negatives, joints."""

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
from detseg.models.features import FrozenFeatures
from detseg.structures import RawPrediction

RCNN = ["fasterrcnn_resnet18_fpn", "maskrcnn_resnet18_fpn"]
LOSSES = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}


def torchvisions(model: Detector) -> Any:
    """A plain torchvision detector with the same modules, which does not resize."""
    family = detection.MaskRCNN if model.has_masks else detection.FasterRCNN
    theirs = family(model.backbone, num_classes=4)
    theirs.rpn, theirs.roi_heads = model.rpn, model.roi_heads
    theirs.transform.resize = lambda image, target: (image, target)
    return theirs.train(model.training)


def assert_close(one: RawPrediction, other: RawPrediction, tolerance: float) -> None:
    assert np.array_equal(one.labels, other.labels)
    for name in ("boxes", "scores", "mask_probs"):
        a, b = getattr(one, name), getattr(other, name)
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
        theirs = torchvisions(model)([image / 255])[0]
        assert 0 < len(prediction.scores) <= 5
        np.testing.assert_allclose(prediction.boxes, theirs["boxes"], atol=1e-3)
        np.testing.assert_allclose(prediction.scores, theirs["scores"], atol=1e-4)
        assert np.array_equal(prediction.labels, theirs["labels"])
        assert np.all(np.diff(prediction.scores) <= 0)
        if model.has_masks:
            assert prediction.mask_probs.shape[1:] == (28, 28)
            probs, boxes = torch.from_numpy(prediction.mask_probs)[:, None], torch.from_numpy(prediction.boxes)
            pasted = paste_masks_in_image(probs, boxes, tuple(image.shape[1:]))
            np.testing.assert_allclose(pasted, theirs["masks"], atol=1e-3)


@pytest.mark.parametrize("arch", RCNN)
def test_losses_equal_torchvisions(small: Any, arch: str) -> None:
    model = small.detector(arch)
    images, targets = small.batch([(96, 64), (64, 128)])
    torch.manual_seed(3)
    ours = model(images, targets)
    reference = torchvisions(model)
    torch.manual_seed(3)
    theirs = reference([image / 255 for image in images], targets)
    assert list(ours) == list(theirs)
    for name in theirs:
        assert ours[name].item() == pytest.approx(theirs[name].item(), rel=1e-5)


def test_a_model_with_published_structure_gives_torchvisions_numbers(small: Any) -> None:
    theirs = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=4).eval()
    model = small.detector("fasterrcnn_mobilenet_v3_large_320_fpn", score_threshold=0.0).eval()
    theirs.load_state_dict(model.state_dict())
    theirs.roi_heads.detections_per_img, theirs.roi_heads.score_thresh = 5, 0.0
    theirs.rpn._pre_nms_top_n, theirs.rpn._post_nms_top_n = model.rpn._pre_nms_top_n, model.rpn._post_nms_top_n
    images, _ = small.batch([(320, 320)])
    for network in (model, theirs):
        network.double()  # random weights make a million of the last digit
    theirs.transform.image_mean = model.mean.flatten().tolist()
    theirs.transform.image_std = model.std.flatten().tolist()
    with torch.no_grad():
        expected = theirs([(images[0] / 255).double()])[0]
    got = model(images)[0]
    assert len(got.scores) == 5
    np.testing.assert_allclose(got.boxes, expected["boxes"], atol=1e-4)
    np.testing.assert_allclose(got.scores, expected["scores"], atol=1e-6)


def test_uint8_and_float_images_are_the_same(small: Any) -> None:
    model = small.detector().eval()
    images, _ = small.batch([(64, 64)])
    assert_close(model(images)[0], model([images[0] / 255])[0], 0)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 2000), (2000, 1), (33, 31)])
def test_any_size_works_and_leaves_nothing_behind(small: Any, size_hw: tuple[int, int]) -> None:
    model = small.detector("maskrcnn_resnet18_fpn").eval()
    usual, _ = small.batch([(64, 96)])
    before = model(usual)[0]
    odd, targets = small.batch([size_hw], [0])
    prediction = model(odd)[0]
    assert np.isfinite(prediction.boxes).all()
    assert (prediction.boxes >= 0).all()
    assert (prediction.boxes <= [size_hw[1], size_hw[0]] * 2).all()
    assert_close(model(usual)[0], before, 0)
    model.train()
    if max(size_hw) <= 32:  # BatchNorm cannot learn from one value
        with pytest.raises(DataError, match="BatchNorm"):
            model(odd, targets)
        freeze(model, "backbone")
    assert all(torch.isfinite(loss) for loss in model(odd, targets).values())


def test_control_torchvisions_pooler_keeps_a_wrong_guess(small: Any) -> None:
    """One image much smaller than its padding spoils a plain torchvision model for good."""
    model = small.detector().eval()
    fresh = torchvisions(model)
    fresh.roi_heads.box_roi_pool.scales = None
    images, _ = small.batch([(1, 1), (64, 96)])
    fresh([images[0] / 255])
    assert fresh.roi_heads.box_roi_pool.scales[0] != 0.25


def test_batch_mates_do_not_matter_in_eval_mode(small: Any) -> None:
    model = small.detector("maskrcnn_resnet18_fpn").eval()
    images, _ = small.batch([(40, 64), (128, 96), (60, 50)])  # the first and third share a padded size
    together = model(images)
    for image, prediction in zip(images, together, strict=True):
        assert_close(model([image])[0], prediction, 1e-3)
    assert_close(model(images[1:2])[0], together[1], 0)  # alone in its size: the same bits
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
    _, usual = small.batch([(64, 64), (64, 96)])
    assert set(losses) == set(model(images, usual))
    expected = LOSSES if level == "none" else {"loss_classifier", "loss_box_reg"}
    assert set(losses) == expected | ({"loss_mask"} if model.has_masks else set())
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is not None for p in model.roi_heads.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())


def test_no_proposal_at_all_gives_finite_losses(small: Any) -> None:
    model = small.detector(rpn_score_threshold=1.1)
    images, targets = small.batch([(64, 64)], [0])
    assert all(torch.isfinite(loss) for loss in model(images, targets).values())
    model.eval()
    assert len(model(images)[0].scores) == 0


@pytest.mark.parametrize("level", ["backbone", "neck", "rpn"])
@pytest.mark.parametrize("kept", ["backbone", "neck"])
def test_losses_from_kept_features_are_the_same_bits(small: Any, level: str, kept: str) -> None:
    model = small.detector("maskrcnn_resnet18_fpn")
    freeze(model, level)
    images, targets = small.batch([(40, 64), (128, 96)])

    def losses(given: Any) -> dict[str, float]:
        torch.manual_seed(5)
        return {name: value.item() for name, value in model(given, targets).items()}

    if kept not in model.levels():
        with pytest.raises(DataError, match="it was given features of level neck"):
            model([replace(one, level=kept) for one in model.frozen_features(images)], targets)
        return
    features = model.frozen_features(images, kept)
    assert not any(tensor.requires_grad for one in features for tensor in one.tensors().values())
    assert losses(features) == losses(images)
    assert losses([one.with_maps(torch.float16) for one in features]) != losses(images)  # control
    assert [one.proposals is not None for one in features] == [level == "rpn"] * 2
    if level == "rpn":
        assert all(len(one.proposals) <= model.description.rpn_post_nms_top_n[1] for one in features)
    for one in features:
        shuffled = dict(sorted(one.tensors().items(), reverse=True))
        assert list(FrozenFeatures.from_tensors(kept, one.size_hw, shuffled).maps) == list(one.maps)
    with pytest.raises(DataError, match="1 of 2 images of the batch are features"):
        model([images[0], features[1]], targets)
    freeze(model, "none")
    with pytest.raises(DataError, match="none, as its backbone is not frozen"):
        model(features, targets)


@pytest.mark.parametrize("level", ["backbone", "neck", "rpn"])
@pytest.mark.parametrize("sizes", [[(40, 64), (128, 96)], [(64, 64), (64, 64), (60, 50)]])
def test_predictions_from_kept_features_are_the_same_bits(small: Any, level: str, sizes: Any) -> None:
    model = small.detector("maskrcnn_resnet18_fpn").eval()
    freeze(model, level)
    images, _ = small.batch(sizes)
    for kept in model.levels():
        features = model.frozen_features(images, kept)
        for one, other in zip(model(features), model(images), strict=True):
            assert np.array_equal(one.boxes, other.boxes)
            assert np.array_equal(one.scores, other.scores)
            assert np.array_equal(one.mask_probs, other.mask_probs)
            assert len(one.scores)


def test_frozen_backbone_maps_do_not_depend_on_batch_mates(small: Any) -> None:
    model = small.detector()
    freeze(model, "rpn")
    images, targets = small.batch([(40, 64), (128, 96)])
    seen: list[Tensor] = []
    model.backbone.body.register_forward_hook(lambda module, args, maps: seen.append(maps["0"]))
    model(images, targets)
    model(images[:1], targets[:1])
    assert torch.equal(seen[0], seen[2])
    freeze(model, "none")  # control: trainable, the image is padded to its batch-mate's size
    model(images, targets)
    assert seen[-1].shape[2:] == (32, 24)


def test_the_norm_belongs_to_the_model(small: Any) -> None:
    """The same weights under another norm are another function, so the description says which."""
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


def test_predictions_after_a_reload_are_the_same_bits(small: Any) -> None:
    model = small.detector("maskrcnn_resnet18_fpn").eval()
    again = build_model(type(model.description).from_dict(model.description.to_dict())).eval()
    again.load_state_dict(model.state_dict())
    images, _ = small.batch([(64, 64)])
    assert_close(again(images)[0], model(images)[0], 0)


def test_an_overfit_on_one_image_drives_the_loss_down(small: Any) -> None:
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
