"""Test one-stage detectors against torchvision's own, and the intended differences."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection import ssdlite

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models import OneStageDetector, build_model, describe, freeze, set_trainable_layers
from detseg.models.architectures import MODELS, octaves
from detseg.models.one_stage_build import SteadyBatchNorm2d
from detseg.models.weights.load import load_state, rename
from detseg.postprocess import finish

SSD = "ssdlite320_mobilenet_v3_large"
RETINANET = "retinanet_mobilenet_v2_fpn_slim"
FCOS = "fcos_mobilenet_v2_fpn_slim"
PUBLISHED = [SSD, "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"]
RESNET50 = ("retinanet_resnet50_fpn", "fcos_resnet50_fpn")
SLOW = pytest.mark.slow
CLASSES = ClassMap(("ant", "bee", "cat"))


def model_of(arch: str, **changes: Any) -> OneStageDetector:
    """A random model that returns its best 30 boxes regardless of their score."""
    torch.manual_seed(0)
    described = describe(arch, CLASSES, weights="none", detections_per_image=30)
    model = build_model(replace(described, **{"score_threshold": 0.0, **changes}))
    assert isinstance(model, OneStageDetector)
    return model


def with_fitted_norms(model: Any, small: Any, sizes: list[tuple[int, int]]) -> Any:
    """Set norm statistics that match the random weights, so that features are of order one."""
    norms = {module: module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model(*small.batch(sizes))
    for norm, momentum in norms.items():
        norm.momentum = momentum
    return model


def torchvisions(arch: str, model: OneStageDetector) -> Any:
    """torchvision's own model of the same name with the same weights and thresholds, without resizing."""
    reference = getattr(detection, arch)(weights=None, weights_backbone=None, num_classes=4)
    reference.load_state_dict(model.state_dict())
    for name, value in (
        ("score_thresh", model.description.score_threshold),
        ("nms_thresh", model.description.nms_threshold),
        ("detections_per_img", model.description.detections_per_image),
    ):
        setattr(reference, name, value)
    reference.transform.resize = lambda image, target: (image, target)
    return reference.train(model.training)


def set_background(model: OneStageDetector, logit: float) -> None:
    """Set the logit of label 0 approximately; far below zero, as in a trained head, it is never predicted."""
    with torch.no_grad():
        model.head.classification_head.cls_logits.bias.view(-1, 4)[:, 0] = logit


@pytest.mark.parametrize("arch", [pytest.param(arch, marks=SLOW) if arch in RESNET50 else arch for arch in PUBLISHED])
def test_losses_and_detections_equal_torchvisions(small: Any, arch: str) -> None:
    sizes = [(96, 96), (96, 96)] if arch == SSD else [(96, 64), (64, 96)]
    model = with_fitted_norms(model_of(arch), small, sizes)
    images, targets = small.batch(sizes)
    reference = torchvisions(arch, model)
    expected = reference([image / 255 for image in images], targets)
    losses = deepcopy(model)(images, targets)
    assert len(losses) == len(expected)
    names = {"classification": "loss_classifier", "bbox_regression": "loss_box_reg", "bbox_ctrness": "loss_centerness"}
    for name, value in expected.items():
        assert losses[names[name]].item() == pytest.approx(value.item(), rel=1e-5)
    shifted = deepcopy(model)  # control: other pixels, other losses
    shifted.mean += 0.1
    different = shifted(images, targets)["loss_classifier"].item()
    assert different != pytest.approx(expected["classification"].item(), rel=1e-5)

    model.eval()
    if arch != SSD:
        set_background(model, -30)
    reference = torchvisions(arch, model)
    for image, prediction in zip(images, model(images), strict=True):
        with torch.no_grad():
            expected = reference([image / 255])[0]
        assert 0 < len(prediction.scores) <= 30
        np.testing.assert_allclose(prediction.scores, expected["scores"], atol=1e-5)
        np.testing.assert_allclose(prediction.boxes, expected["boxes"], atol=1e-3)
        assert np.array_equal(prediction.labels, expected["labels"])


@pytest.mark.parametrize("arch", [RETINANET, FCOS])
def test_label_0_is_never_predicted(small: Any, arch: str) -> None:
    model = with_fitted_norms(model_of(arch), small, [(64, 64), (64, 96)]).eval()
    set_background(model, 5)
    images, _ = small.batch([(64, 64)])
    assert set(model(images)[0].labels) <= {1, 2, 3}
    assert len(model(images)[0].scores) == 30
    reference = model.network.eval()  # control: torchvision's network with the same modules
    reference.transform.resize = lambda image, target: (image, target)
    with torch.no_grad():
        assert set(reference([images[0] / 255])[0]["labels"].tolist()) == {0}


def test_boxes_of_a_stretched_image_equal_torchvisions(small: Any) -> None:
    """All steps of SSDLite: resize without keeping the aspect ratio, network, boxes in original pixels."""
    model = with_fitted_norms(model_of(SSD), small, [(320, 320)] * 2).eval()
    reference = torchvisions(SSD, model)
    del reference.transform.resize  # restore torchvision's own
    image = small.batch([(90, 160)])[0][0] / 255
    geometry = model.preprocessing.geometry((90, 160))
    assert geometry.resized_hw == (320, 320)
    resized, _ = reference.transform.resize(image)
    prediction = finish(model([resized])[0], geometry)
    with torch.no_grad():
        expected = reference([image])[0]
    np.testing.assert_allclose(prediction.boxes, expected["boxes"], atol=1e-3)
    np.testing.assert_allclose(prediction.scores, expected["scores"], atol=1e-5)
    assert prediction.boxes[:, 2].max() > 90  # control: the two axes have different scales


@pytest.mark.parametrize("arch", [SSD, RETINANET, FCOS])
@pytest.mark.parametrize("level", ["backbone", "neck"])
def test_losses_from_cached_maps_are_bit_equal(small: Any, arch: str, level: str) -> None:
    model = model_of(arch)
    freeze(model, level)
    sizes = [(96, 96), (96, 96)] if arch == SSD else [(40, 64), (128, 96)]
    images, targets = small.batch(sizes)
    expected = deepcopy(model)(images, targets)
    assert model.levels() == (("neck", "backbone") if level == "neck" else ("backbone",))
    for cached in model.levels():
        features = model.train().frozen_features(images, cached)
        assert not any(tensor.requires_grad for image in features for tensor in image.tensors().values())
        assert deepcopy(model)(features, targets) == expected
        changed = [replace(image, maps={name: tensor + 1 for name, tensor in image.maps.items()}) for image in features]
        assert deepcopy(model)(changed, targets) != expected  # control
        model.eval()
        for actual, reference in zip(model(model.frozen_features(images, cached)), model(images), strict=True):
            assert np.array_equal(actual.boxes, reference.boxes)
            assert np.array_equal(actual.scores, reference.scores)


def test_heads_are_initialized_with_the_focal_prior() -> None:
    for arch in (RETINANET, FCOS):
        bias = model_of(arch).head.classification_head.cls_logits.bias
        torch.testing.assert_close(bias, torch.full_like(bias, -np.log(0.99 / 0.01)))


# SSDLite only.


def test_ssdlite_trains_with_batches_of_one_image(small: Any) -> None:
    model = with_fitted_norms(model_of(SSD), small, [(320, 320)] * 2)
    images, targets = small.batch([(320, 320)], [2])
    with pytest.raises(ValueError, match="more than 1 value"):  # control: torchvision's raises an error
        torchvisions(SSD, model)([images[0] / 255], targets)
    last = [module for module in model.modules() if isinstance(module, SteadyBatchNorm2d)][-1]
    before = last.running_mean.clone()
    assert all(torch.isfinite(loss) for loss in model(images, targets).values())
    assert torch.equal(last.running_mean, before)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 1, 1), (1, 3, 2, 1)])
def test_steady_norms_equal_batch_norms_where_those_work(shape: tuple[int, ...]) -> None:
    steady, reference = SteadyBatchNorm2d(3), nn.BatchNorm2d(3)
    batch = torch.rand(shape)
    if shape == (1, 3, 1, 1):
        reference.eval()
    assert torch.equal(steady(batch), reference(batch))
    assert torch.equal(steady.running_var, reference.running_var)


def test_ssdlite_losses_are_zero_without_instances(small: Any) -> None:
    model = model_of(SSD)
    images, targets = small.batch([(96, 96), (96, 96)], [0, 0])
    assert sum(loss.item() for loss in model(images, targets).values()) == 0


@pytest.mark.parametrize("layers", [0, 1, 2, 4, 6])
def test_trainable_layers_of_ssdlite_are_torchvisions(layers: int) -> None:
    model = model_of(SSD)
    set_trainable_layers(model, layers)
    network = torchvision.models.mobilenet_v3_large(weights=None, reduced_tail=True)
    reference = ssdlite._mobilenet_extractor(network, layers, nn.BatchNorm2d)
    expected = {f"backbone.{name}": parameter.requires_grad for name, parameter in reference.named_parameters()}
    trainable = {name: p.requires_grad for name, p in model.named_parameters() if name.startswith("backbone.")}
    assert trainable == expected


# Weights.


def classifier_state(arch: str) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return getattr(torchvision.models, arch)(weights=None).state_dict()


def test_imagenet_weights_are_loaded_into_ssdlites_backbone() -> None:
    """For them torchvision builds the full tail, and for COCO weights the reduced one."""
    assert describe(SSD, CLASSES, weights="coco").reduced_tail
    description = describe(SSD, CLASSES, weights="imagenet")
    assert not description.reduced_tail
    model: Any = build_model(description).eval()
    state = classifier_state("mobilenet_v3_large")
    report = load_state(model, state, "imagenet")
    assert [part for part, loaded, count in report.by_part if loaded == count] == ["stem", "backbone"]
    network = torchvision.models.mobilenet_v3_large(weights=None)
    network.load_state_dict(state)
    reference = ssdlite.SSDLiteFeatureExtractorMobileNet(network.features, 13, nn.BatchNorm2d).eval()
    batch = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = model.backbone(batch)
        assert torch.equal(maps["1"], reference(batch)["1"])
    with pytest.raises(DataError, match="do not match"):  # control: the reduced tail does not match them
        load_state(model_of(SSD), state, "imagenet")


@pytest.mark.parametrize("reduced", [True, False])
def test_the_tail_is_that_of_the_file(tmp_path: Any, reduced: bool) -> None:
    saved = build_model(replace(describe(SSD, CLASSES, weights="none"), reduced_tail=reduced))
    torch.save(saved.state_dict(), tmp_path / "mine.pth")
    description = describe(SSD, CLASSES, weights=str(tmp_path / "mine.pth"))
    assert description.reduced_tail == reduced
    model = build_model(description)
    report = load_state(model, saved.state_dict(), "mine")
    assert report.missing == report.mismatched == report.unexpected == ()


@pytest.mark.parametrize("arch", ["retinanet_resnet18_fpn", "fcos_resnet18_fpn"])
def test_classification_weights_are_loaded_into_the_backbone(arch: str) -> None:
    model = model_of(arch)
    report = load_state(model, classifier_state("resnet18"), "imagenet")
    assert [part for part, loaded, count in report.by_part if loaded == count] == ["stem", "backbone"]
    assert all(name.removeprefix("backbone.body.").startswith("fc.") for name in report.unexpected)


def test_old_names_of_retinanet_are_converted() -> None:
    """The published file of retinanet_resnet50_fpn is from before torchvision 0.12."""
    with torch.device("meta"):
        model = build_model(describe("retinanet_resnet50_fpn", CLASSES, weights="none"))
    saved, old = model.state_dict(), {}
    for name, tensor in saved.items():
        for block in range(4):
            name = name.replace(f"_head.conv.{block}.0.", f"_head.conv.{2 * block}.")
        for kind in ("inner", "layer"):
            for level in range(3):
                name = name.replace(f"{kind}_blocks.{level}.0.", f"{kind}_blocks.{level}.")
        old[name] = tensor
    assert len(set(old) - set(saved)) == 4 * 2 * 2 + 3 * 2 * 2
    assert {name: tensor.shape for name, tensor in rename(old, model).items()} == {
        name: tensor.shape for name, tensor in saved.items()
    }


@pytest.mark.parametrize("arch", [SSD, RETINANET, FCOS])
def test_another_number_of_classes_affects_only_classification_layers(arch: str) -> None:
    coco = build_model(describe(arch, ClassMap.from_names([f"c{i}" for i in range(90)]), weights="none"))
    model = model_of(arch)
    report = load_state(model, coco.state_dict(), "coco")
    assert report.missing == report.unexpected == ()
    assert report.mismatched
    assert all(name.startswith("head.classification_head.") for name in report.mismatched)
    for name, tensor in coco.state_dict().items():
        if name.startswith("head.regression_head."):
            assert torch.equal(model.state_dict()[name], tensor)


# Descriptions.


@pytest.mark.parametrize(
    ("arch", "weights", "norm", "eps"),
    [
        (SSD, "coco", "batch", 1e-3),
        (SSD, "imagenet", "batch", 1e-3),
        (SSD, "none", "batch", 1e-3),
        ("retinanet_resnet50_fpn", "coco", "frozen", 0.0),
        ("retinanet_resnet50_fpn", "imagenet", "frozen", 1e-5),
        ("retinanet_resnet50_fpn_v2", "coco", "batch", 1e-5),
        ("fcos_resnet50_fpn", "coco", "frozen", 1e-5),
        ("fcos_resnet50_fpn", "none", "batch", 1e-5),
    ],
)
def test_norm_layers_match_the_weights(arch: str, weights: str, norm: str, eps: float) -> None:
    description = describe(arch, CLASSES, weights=weights)
    assert (description.norm, description.norm_eps) == (norm, eps)


def test_norms_and_thresholds_are_torchvisions() -> None:
    with torch.device("meta"):
        for arch in PUBLISHED:
            reference = getattr(detection, arch)(weights=None, weights_backbone=None, num_classes=4)
            model: Any = build_model(describe(arch, CLASSES, weights="none"))

            def norms(model: Any) -> list[tuple[float, float]]:
                return [(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]

            assert norms(model) == norms(reference)
            assert model.network.nms_thresh == reference.nms_thresh
            assert model.network.topk_candidates == reference.topk_candidates
            if arch != SSD:
                assert model.network.anchor_generator.sizes == reference.anchor_generator.sizes
            if arch != "fcos_resnet50_fpn":  # whose 0.2 would truncate AP's precision-recall curve
                assert model.network.score_thresh == reference.score_thresh
            means = reference.transform.image_mean, reference.transform.image_std
            assert means == ([*model.preprocessing.mean], [*model.preprocessing.std])


def test_sizes() -> None:
    assert describe(SSD, CLASSES, weights="none").preprocessing.resized_hw((90, 700)) == (320, 320)
    assert describe(SSD, CLASSES, weights="none", image_size=512).preprocessing.resized_hw((90, 700)) == (512, 512)
    assert describe(FCOS, CLASSES, weights="none").preprocessing.resized_hw((400, 500)) == (320, 400)
    assert describe("fcos_resnet50_fpn", CLASSES, weights="none").preprocessing.min_size == 800


def test_only_retinanet_has_configurable_anchors() -> None:
    sizes = ((16,), (32,), (64,), (128,), (256,))
    description = describe(RETINANET, CLASSES, weights="none", anchor_sizes=sizes)
    assert description.anchor_sizes == octaves(sizes) == MODELS[RETINANET].anchor_sizes
    assert octaves(((8, 9),)) == ((8, 9),)
    with pytest.raises(DataError, match="5 maps"):
        build_model(replace(description, anchor_sizes=((8,),)))
    for arch in (SSD, FCOS):
        with pytest.raises(DataError, match="remove anchor_sizes"):
            describe(arch, CLASSES, weights="none", anchor_sizes=sizes)


def test_crowded_images_get_enough_candidates() -> None:
    description = describe(SSD, CLASSES, weights="none", detections_per_image=400)
    assert description.topk_candidates == 1200


@pytest.mark.parametrize("arch", [SSD, *(pytest.param(arch, marks=SLOW) for arch in (RETINANET, FCOS))])
def test_a_few_steps_learn_the_object_and_its_label(arch: str) -> None:
    """Labels and boxes have the same meaning in targets and predictions."""
    model = model_of(arch, score_threshold=0.05)
    freeze(model, "none")
    image = torch.full((3, 64, 64), 40, dtype=torch.uint8)
    image[:, 12:60, 8:48] = torch.tensor([220, 160, 30], dtype=torch.uint8)[:, None, None]
    images = [image, image.flip(1)]
    targets = [
        {"boxes": torch.tensor([[8.0, top, 48.0, top + 48.0]]), "labels": torch.tensor([3])} for top in (12.0, 4.0)
    ]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(25):
        loss = torch.stack(list(model(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # 25 steps are too few for running means
    model(images, targets)
    best = model.eval()([image])[0]
    overlap = torchvision.ops.box_iou(torch.from_numpy(best.boxes[:1]), targets[0]["boxes"])
    assert best.labels[0] == 3
    assert overlap.item() > 0.5
