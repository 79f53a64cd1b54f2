"""Test classifiers against torchvision's own."""

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
    reference = getattr(torchvision.models, arch)(weights=None, num_classes=3)
    reference.load_state_dict(model.state_dict())
    images, _ = small.batch([(64, 64)] * 3)
    batch = torch.stack([image / 255 for image in images])
    batch = (batch - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    with torch.no_grad():
        expected = reference.eval()(batch).softmax(1)
    predictions = model.eval()(images)
    np.testing.assert_allclose([p.probabilities for p in predictions], expected, atol=1e-6)
    assert [p.class_index for p in predictions] == expected.argmax(1).tolist()

    torch.manual_seed(2)  # MobileNets have dropout
    losses = model.train()(images, indices(0, 2, 1))
    torch.manual_seed(2)
    loss = torch.nn.functional.cross_entropy(reference.train()(batch), torch.tensor([0, 2, 1]))
    assert list(losses) == ["loss_classifier"]
    assert losses["loss_classifier"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_features_and_head_together_equal_the_model(small: Any) -> None:
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


def test_a_frozen_backbone_processes_each_image_alone(small: Any) -> None:
    model = small.classifier("mobilenet_v2")
    freeze(model, "backbone")
    images, _ = small.batch([(64, 64), (64, 96), (40, 40)])
    features = model.pooled_features(images)
    assert not features.requires_grad
    for index, image in enumerate(images):
        assert torch.equal(model.pooled_features([image])[0], features[index])
    loss = torch.nn.functional.cross_entropy(model.head(features), torch.tensor([0, 1, 2]))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("training", [True, False])
def test_cached_features_give_bit_equal_outputs(small: Any, training: bool) -> None:
    model = small.classifier("resnet18").train(training)
    freeze(model, "backbone")
    images, _ = small.batch([(64, 64), (64, 64), (64, 64)])
    targets = indices(0, 1, 2) if training else None

    def outputs(inputs: Any) -> Any:
        torch.manual_seed(4)
        result = model(inputs, targets)
        return result["loss_classifier"].item() if training else [p.probabilities.tolist() for p in result]

    features = model.frozen_features(images)
    assert features[0].maps["pooled"].shape == (1, 512)
    assert outputs(features) == outputs(images)
    assert outputs([image.with_maps(torch.float16) for image in features]) != outputs(images)  # control


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


def test_overfitting_four_images_reduces_the_loss(small: Any) -> None:
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
