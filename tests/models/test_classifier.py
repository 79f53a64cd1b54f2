"""Classifiers against torchvision's own, under the detectors' contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from detseg.errors import DataError
from detseg.models import MODELS, freeze
from detseg.preprocess import IMAGENET_MEAN, IMAGENET_STD

CLASSIFIERS = [name for name, architecture in MODELS.items() if architecture.task == "classify"]
SMALL = ["resnet18", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"]


def indices(*values: int) -> list[dict[str, Tensor]]:
    return [{"class_index": torch.tensor(value), "image_id": torch.tensor(40 + value)} for value in values]


@pytest.mark.parametrize("arch", SMALL)
def test_probabilities_and_loss_equal_torchvisions(small: Any, arch: str) -> None:
    model = small.classifier(arch)
    theirs = getattr(torchvision.models, arch)(weights=None, num_classes=3)
    theirs.load_state_dict(model.state_dict())
    images, _ = small.batch([(64, 64)] * 3)
    batch = torch.stack([image / 255 for image in images])
    batch = (batch - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    with torch.no_grad():
        expected = theirs.eval()(batch).softmax(1)
    predictions = model.eval()(images)
    np.testing.assert_allclose([p.probabilities for p in predictions], expected, atol=1e-6)
    assert [p.class_index for p in predictions] == expected.argmax(1).tolist()

    torch.manual_seed(2)  # MobileNets drop out
    losses = model.train()(images, indices(0, 2, 1))
    torch.manual_seed(2)
    loss = torch.nn.functional.cross_entropy(theirs.train()(batch), torch.tensor([0, 2, 1]))
    assert list(losses) == ["loss_classifier"]
    assert losses["loss_classifier"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_features_and_head_are_the_two_halves(small: Any) -> None:
    model = small.classifier("mobilenet_v3_small").eval()
    images, _ = small.batch([(64, 64)] * 2)
    features = model.pooled_features(images)
    assert features.shape == (2, 576)
    probabilities = model.head(features).softmax(1).detach().numpy()
    assert np.array_equal(probabilities, [p.probabilities for p in model(images)])


@pytest.mark.parametrize("arch", SMALL)
def test_one_image_trains(small: Any, arch: str) -> None:
    model = small.classifier(arch)
    images, _ = small.batch([(64, 64)])
    model(images, indices(1))["loss_classifier"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_one_tiny_image_needs_a_frozen_backbone(small: Any) -> None:
    model = small.classifier()
    images, _ = small.batch([(32, 32)])
    with pytest.raises(DataError, match=r"32 x 32.*BatchNorm"):
        model(images, indices(1))
    freeze(model, "backbone")
    assert torch.isfinite(model(images, indices(1))["loss_classifier"])


def test_a_frozen_backbone_sees_each_image_alone(small: Any) -> None:
    model = small.classifier("mobilenet_v2")
    freeze(model, "backbone")
    images, _ = small.batch([(64, 64), (64, 96), (40, 40)])
    features = model.pooled_features(images)
    assert not features.requires_grad
    for index, image in enumerate(images):
        assert torch.equal(model.pooled_features([image])[0], features[index])
    kept = torch.nn.functional.cross_entropy(model.head(features), torch.tensor([0, 1, 2]))
    assert torch.isfinite(kept)


@pytest.mark.parametrize("training", [True, False])
def test_kept_features_give_the_same_bits(small: Any, training: bool) -> None:
    model = small.classifier("resnet18").train(training)
    freeze(model, "backbone")
    images, _ = small.batch([(64, 64), (64, 64), (64, 64)])
    targets = indices(0, 1, 2) if training else None

    def outputs(given: Any) -> Any:
        torch.manual_seed(4)
        found = model(given, targets)
        return found["loss_classifier"].item() if training else [one.probabilities.tolist() for one in found]

    features = model.frozen_features(images)
    assert features[0].maps["pooled"].shape == (1, 512)
    assert outputs(features) == outputs(images)
    assert outputs([one.with_maps(torch.float16) for one in features]) != outputs(images)  # control


def test_sizes_may_differ_in_eval_mode_only(small: Any) -> None:
    model = small.classifier()
    images, _ = small.batch([(64, 64), (64, 96)])
    with pytest.raises(DataError, match=r"\(64, 64\), \(64, 96\)"):
        model(images, indices(0, 1))
    model.eval()
    np.testing.assert_allclose(model(images)[1].probabilities, model(images[1:])[0].probabilities, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, "one target per image"),
        (indices(0), "one target per image"),
        (indices(0, 3), "image_id 43: class_index 3 is outside 0..2"),
        (indices(-1, 0), "image_id 39: class_index -1 is outside 0..2"),
        ([{"class_index": torch.tensor([1])}] * 2, "int64 tensor"),
        ([{"class_index": torch.tensor(1.0)}] * 2, "int64 tensor"),
        ([{"boxes": torch.zeros(0, 4)}] * 2, "class_index is None"),
    ],
)
def test_wrong_targets_are_refused(small: Any, targets: Any, message: str) -> None:
    images, _ = small.batch([(64, 64)] * 2)
    with pytest.raises(DataError, match=message):
        small.classifier()(images, targets)


def test_an_overfit_on_four_images_drives_the_loss_down(small: Any) -> None:
    model = small.classifier()
    images, _ = small.batch([(64, 64)] * 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = model(images, indices(0, 1, 2, 0))["loss_classifier"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
