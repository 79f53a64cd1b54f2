"""One-stage detectors against torchvision's own, and where they differ on purpose."""

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
    """A random model that shows its best 30 boxes whatever their score."""
    torch.manual_seed(0)
    described = describe(arch, CLASSES, weights="none", detections_per_image=30)
    model = build_model(replace(described, **{"score_threshold": 0.0, **changes}))
    assert isinstance(model, OneStageDetector)
    return model


def settled(model: Any, small: Any, sizes: list[tuple[int, int]]) -> Any:
    """Norm statistics that fit the random weights, so that features stay of order one."""
    norms = {module: module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model(*small.batch(sizes))
    for norm, momentum in norms.items():
        norm.momentum = momentum
    return model


def torchvisions(arch: str, model: OneStageDetector) -> Any:
    """torchvision's own model of the same name with the same weights and thresholds, which does not resize."""
    theirs = getattr(detection, arch)(weights=None, weights_backbone=None, num_classes=4)
    theirs.load_state_dict(model.state_dict())
    for name, value in (
        ("score_thresh", model.description.score_threshold),
        ("nms_thresh", model.description.nms_threshold),
        ("detections_per_img", model.description.detections_per_image),
    ):
        setattr(theirs, name, value)
    theirs.transform.resize = lambda image, target: (image, target)
    return theirs.train(model.training)


def set_background(model: OneStageDetector, logit: float) -> None:
    """Give label 0 about this logit everywhere; far below zero, as in a trained head, it is never predicted."""
    with torch.no_grad():
        model.head.classification_head.cls_logits.bias.view(-1, 4)[:, 0] = logit


@pytest.mark.parametrize("arch", [pytest.param(arch, marks=SLOW) if arch in RESNET50 else arch for arch in PUBLISHED])
def test_losses_and_detections_equal_torchvisions(small: Any, arch: str) -> None:
    sizes = [(96, 96), (96, 96)] if arch == SSD else [(96, 64), (64, 96)]
    model = settled(model_of(arch), small, sizes)
    images, targets = small.batch(sizes)
    theirs = torchvisions(arch, model)
    expected = theirs([image / 255 for image in images], targets)
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
    theirs = torchvisions(arch, model)
    for image, prediction in zip(images, model(images), strict=True):
        with torch.no_grad():
            wanted = theirs([image / 255])[0]
        assert 0 < len(prediction.scores) <= 30
        np.testing.assert_allclose(prediction.scores, wanted["scores"], atol=1e-5)
        np.testing.assert_allclose(prediction.boxes, wanted["boxes"], atol=1e-3)
        assert np.array_equal(prediction.labels, wanted["labels"])


@pytest.mark.parametrize("arch", [RETINANET, FCOS])
def test_label_0_is_never_predicted(small: Any, arch: str) -> None:
    model = settled(model_of(arch), small, [(64, 64), (64, 96)]).eval()
    set_background(model, 5)
    images, _ = small.batch([(64, 64)])
    assert set(model(images)[0].labels) <= {1, 2, 3}
    assert len(model(images)[0].scores) == 30
    plain = model.network.eval()  # control: torchvision's network around the same modules
    plain.transform.resize = lambda image, target: (image, target)
    with torch.no_grad():
        assert set(plain([images[0] / 255])[0]["labels"].tolist()) == {0}


def test_a_stretched_image_ends_in_torchvisions_pixels(small: Any) -> None:
    """The whole way of SSDLite: resize that keeps no aspect, network, boxes back to the original."""
    model = settled(model_of(SSD), small, [(320, 320)] * 2).eval()
    theirs = torchvisions(SSD, model)
    del theirs.transform.resize  # torchvision's own again
    image = small.batch([(90, 160)])[0][0] / 255
    geometry = model.preprocessing.geometry((90, 160))
    assert geometry.resized_hw == (320, 320)
    resized, _ = theirs.transform.resize(image)
    prediction = finish(model([resized])[0], geometry)
    with torch.no_grad():
        wanted = theirs([image])[0]
    np.testing.assert_allclose(prediction.boxes, wanted["boxes"], atol=1e-3)
    np.testing.assert_allclose(prediction.scores, wanted["scores"], atol=1e-5)
    assert prediction.boxes[:, 2].max() > 90  # control: the axes have scales of their own


@pytest.mark.parametrize("arch", [SSD, RETINANET, FCOS])
@pytest.mark.parametrize("level", ["backbone", "neck"])
def test_losses_from_kept_maps_are_the_same_bits(small: Any, arch: str, level: str) -> None:
    model = model_of(arch)
    freeze(model, level)
    sizes = [(96, 96), (96, 96)] if arch == SSD else [(40, 64), (128, 96)]
    images, targets = small.batch(sizes)
    usual = deepcopy(model)(images, targets)
    assert model.levels() == (("neck", "backbone") if level == "neck" else ("backbone",))
    for kept in model.levels():
        features = model.train().frozen_features(images, kept)
        assert not any(tensor.requires_grad for one in features for tensor in one.tensors().values())
        assert deepcopy(model)(features, targets) == usual
        moved = [replace(one, maps={name: tensor + 1 for name, tensor in one.maps.items()}) for one in features]
        assert deepcopy(model)(moved, targets) != usual  # control
        model.eval()
        for one, other in zip(model(model.frozen_features(images, kept)), model(images), strict=True):
            assert np.array_equal(one.boxes, other.boxes)
            assert np.array_equal(one.scores, other.scores)


def test_heads_start_with_the_focal_prior() -> None:
    for arch in (RETINANET, FCOS):
        bias = model_of(arch).head.classification_head.cls_logits.bias
        torch.testing.assert_close(bias, torch.full_like(bias, -np.log(0.99 / 0.01)))


# SSDLite on its own.


def test_one_image_a_batch_is_enough_for_ssdlite(small: Any) -> None:
    model = settled(model_of(SSD), small, [(320, 320)] * 2)
    images, targets = small.batch([(320, 320)], [2])
    with pytest.raises(ValueError, match="more than 1 value"):  # control: torchvision's stops
        torchvisions(SSD, model)([images[0] / 255], targets)
    last = [module for module in model.modules() if isinstance(module, SteadyBatchNorm2d)][-1]
    before = last.running_mean.clone()
    assert all(torch.isfinite(loss) for loss in model(images, targets).values())
    assert torch.equal(last.running_mean, before)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 1, 1), (1, 3, 2, 1)])
def test_steady_norms_are_plain_norms_wherever_those_work(shape: tuple[int, ...]) -> None:
    steady, plain = SteadyBatchNorm2d(3), nn.BatchNorm2d(3)
    batch = torch.rand(shape)
    if shape == (1, 3, 1, 1):
        plain.eval()
    assert torch.equal(steady(batch), plain(batch))
    assert torch.equal(steady.running_var, plain.running_var)


def test_ssdlite_learns_nothing_from_a_batch_without_instances(small: Any) -> None:
    model = model_of(SSD)
    images, targets = small.batch([(96, 96), (96, 96)], [0, 0])
    assert sum(loss.item() for loss in model(images, targets).values()) == 0


@pytest.mark.parametrize("layers", [0, 1, 2, 4, 6])
def test_trainable_layers_of_ssdlite_are_torchvisions(layers: int) -> None:
    model = model_of(SSD)
    set_trainable_layers(model, layers)
    network = torchvision.models.mobilenet_v3_large(weights=None, reduced_tail=True)
    theirs = ssdlite._mobilenet_extractor(network, layers, nn.BatchNorm2d)
    expected = {f"backbone.{name}": parameter.requires_grad for name, parameter in theirs.named_parameters()}
    got = {name: p.requires_grad for name, p in model.named_parameters() if name.startswith("backbone.")}
    assert got == expected


# Weights.


def classifier_state(arch: str) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return getattr(torchvision.models, arch)(weights=None).state_dict()


def test_imagenet_weights_fill_ssdlites_backbone() -> None:
    """torchvision builds it with the whole tail for them, and with the reduced one for COCO weights."""
    assert describe(SSD, CLASSES, weights="coco").reduced_tail
    description = describe(SSD, CLASSES, weights="imagenet")
    assert not description.reduced_tail
    model: Any = build_model(description).eval()
    state = classifier_state("mobilenet_v3_large")
    report = load_state(model, state, "imagenet")
    assert [part for part, loaded, count in report.by_part if loaded == count] == ["stem", "backbone"]
    network = torchvision.models.mobilenet_v3_large(weights=None)
    network.load_state_dict(state)
    theirs = ssdlite.SSDLiteFeatureExtractorMobileNet(network.features, 13, nn.BatchNorm2d).eval()
    batch = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = model.backbone(batch)
        assert torch.equal(maps["1"], theirs(batch)["1"])
    with pytest.raises(DataError, match="do not fit"):  # control: the reduced tail has no room for them
        load_state(model_of(SSD), state, "imagenet")


@pytest.mark.parametrize("reduced", [True, False])
def test_the_tail_follows_the_file(tmp_path: Any, reduced: bool) -> None:
    saved = build_model(replace(describe(SSD, CLASSES, weights="none"), reduced_tail=reduced))
    torch.save(saved.state_dict(), tmp_path / "mine.pth")
    description = describe(SSD, CLASSES, weights=str(tmp_path / "mine.pth"))
    assert description.reduced_tail == reduced
    model = build_model(description)
    report = load_state(model, saved.state_dict(), "mine")
    assert report.missing == report.mismatched == report.unexpected == ()


@pytest.mark.parametrize("arch", ["retinanet_resnet18_fpn", "fcos_resnet18_fpn"])
def test_classification_weights_fill_the_backbone(arch: str) -> None:
    model = model_of(arch)
    report = load_state(model, classifier_state("resnet18"), "imagenet")
    assert [part for part, loaded, count in report.by_part if loaded == count] == ["stem", "backbone"]
    assert all(name.removeprefix("backbone.body.").startswith("fc.") for name in report.unexpected)


def test_old_names_of_retinanet_are_known() -> None:
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
def test_another_number_of_classes_replaces_only_what_names_them(arch: str) -> None:
    coco = build_model(describe(arch, ClassMap.from_names([f"c{i}" for i in range(90)]), weights="none"))
    model = model_of(arch)
    report = load_state(model, coco.state_dict(), "coco")
    assert report.missing == report.unexpected == ()
    assert report.mismatched
    assert all(name.startswith("head.classification_head.") for name in report.mismatched)
    kept = "head.regression_head."
    for name, tensor in coco.state_dict().items():
        if name.startswith(kept):
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
def test_norms_are_those_of_the_weights(arch: str, weights: str, norm: str, eps: float) -> None:
    description = describe(arch, CLASSES, weights=weights)
    assert (description.norm, description.norm_eps) == (norm, eps)


def test_norms_and_thresholds_are_torchvisions() -> None:
    with torch.device("meta"):
        for arch in PUBLISHED:
            theirs = getattr(detection, arch)(weights=None, weights_backbone=None, num_classes=4)
            ours: Any = build_model(describe(arch, CLASSES, weights="none"))

            def norms(model: Any) -> list[tuple[float, float]]:
                return [(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]

            assert norms(ours) == norms(theirs)
            assert ours.network.nms_thresh == theirs.nms_thresh
            assert ours.network.topk_candidates == theirs.topk_candidates
            if arch != SSD:
                assert ours.network.anchor_generator.sizes == theirs.anchor_generator.sizes
            if arch != "fcos_resnet50_fpn":  # whose 0.2 would cut AP's curve
                assert ours.network.score_thresh == theirs.score_thresh
            means = theirs.transform.image_mean, theirs.transform.image_std
            assert means == ([*ours.preprocessing.mean], [*ours.preprocessing.std])


def test_sizes() -> None:
    assert describe(SSD, CLASSES, weights="none").preprocessing.resized_hw((90, 700)) == (320, 320)
    assert describe(SSD, CLASSES, weights="none", image_size=512).preprocessing.resized_hw((90, 700)) == (512, 512)
    assert describe(FCOS, CLASSES, weights="none").preprocessing.resized_hw((400, 500)) == (320, 400)
    assert describe("fcos_resnet50_fpn", CLASSES, weights="none").preprocessing.min_size == 800


def test_anchors_can_be_given_to_retinanet_alone() -> None:
    sizes = ((16,), (32,), (64,), (128,), (256,))
    description = describe(RETINANET, CLASSES, weights="none", anchor_sizes=sizes)
    assert description.anchor_sizes == octaves(sizes) == MODELS[RETINANET].anchor_sizes
    assert octaves(((8, 9),)) == ((8, 9),)
    with pytest.raises(DataError, match="5 maps"):
        build_model(replace(description, anchor_sizes=((8,),)))
    for arch in (SSD, FCOS):
        with pytest.raises(DataError, match="leave them out"):
            describe(arch, CLASSES, weights="none", anchor_sizes=sizes)


def test_crowded_images_get_candidates_enough() -> None:
    description = describe(SSD, CLASSES, weights="none", detections_per_image=400)
    assert description.topk_candidates == 1200


@pytest.mark.parametrize("arch", [SSD, *(pytest.param(arch, marks=SLOW) for arch in (RETINANET, FCOS))])
def test_a_few_steps_find_the_object_and_its_label(arch: str) -> None:
    """Labels keep their meaning from target to prediction, and boxes theirs."""
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
