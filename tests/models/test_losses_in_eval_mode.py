"""Test that computing a validation loss does not change the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.models import detection

from detseg.models import freeze, losses_in_eval_mode


def torchvision_model() -> Any:
    return detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=64, max_size=96, rpn_post_nms_top_n_train=20
    )


def build(kind: str, small: Any) -> Any:
    if kind == "classifier":
        return small.classifier("mobilenet_v2")
    return torchvision_model() if kind == "torchvision" else small.detector("maskrcnn_resnet18_fpn")


@pytest.mark.parametrize("kind", ["detector", "classifier", "torchvision"])
def test_losses_do_not_change_the_model(small: Any, kind: str) -> None:
    model = build(kind, small).eval()
    images, targets = small.batch([(64, 64), (64, 64)])
    images = [image / 255 for image in images]
    for target in targets:
        target["class_index"] = torch.tensor(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = next(model.modules())
    modes = [module.training for module in model.modules()]
    values = []
    for _ in range(2):
        torch.manual_seed(4)
        with losses_in_eval_mode(model) as inside:
            assert inside is first
            losses = model(images, targets)
        assert not any(loss.requires_grad for loss in losses.values())
        values.append({name: loss.item() for name, loss in losses.items()})
    assert values[0] == values[1]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    model.train()  # control: training mode changes the statistics
    with torch.no_grad():
        model(images, targets)
    assert not all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_dropout_is_off(small: Any) -> None:
    model = small.classifier("mobilenet_v2").eval()
    images, _ = small.batch([(64, 64), (64, 64)])
    targets = [{"class_index": torch.tensor(0)}] * 2
    expected = -sum(float(torch.log(torch.tensor(p.probabilities[0]))) for p in model(images)) / 2
    with losses_in_eval_mode(model):
        assert model(images, targets)["loss_classifier"].item() == pytest.approx(expected, rel=1e-5)


def test_modes_are_restored_after_an_error(small: Any) -> None:
    model = small.detector()
    freeze(model, "backbone")
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    with pytest.raises(RuntimeError, match="stop"), losses_in_eval_mode(model):
        raise RuntimeError("stop")
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


def test_gradients_if_requested(small: Any) -> None:
    model = small.detector().eval()
    images, targets = small.batch([(64, 64)])
    with losses_in_eval_mode(model, gradients=True):
        assert all(loss.requires_grad for loss in model(images, targets).values())


def test_a_frozen_rpn_has_no_loss(small: Any) -> None:
    model = small.detector()
    freeze(model, "rpn")
    images, targets = small.batch([(64, 64)])
    with losses_in_eval_mode(model):
        assert set(model(images, targets)) == {"loss_classifier", "loss_box_reg"}
