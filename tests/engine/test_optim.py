"""Parameter groups, and optimizer state by parameter name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detseg.engine.optim import build_optimizer, load_optimizer_tensors, optimizer_tensors
from detseg.errors import DataError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"backbone": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))})
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone["backbone"](x).mean((2, 3)))  # type: ignore[no-any-return]


def train(net: Net, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        net(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()


def test_groups() -> None:
    net = Net()
    groups = build_optimizer(net, lr=1.0, backbone_lr_mult=0.1, weight_decay=0.5).param_groups
    settings = {group["name"]: (group["lr"], group["weight_decay"], len(group["params"])) for group in groups}
    assert settings == {
        "backbone": (0.1, 0.5, 1),
        "backbone, no decay": (0.1, 0.0, 3),
        "heads": (1.0, 0.5, 1),
        "heads, no decay": (1.0, 0.0, 1),
    }


class NetWithLastLayers(Net):
    """A model that defines its last layers."""

    def is_last_parameter(self, name: str) -> bool:
        return name.startswith("head.")


def test_the_last_layers_have_their_own_learning_rate() -> None:
    net = NetWithLastLayers()
    groups = build_optimizer(net, lr=1.0, backbone_lr_mult=0.1, head_lr_mult=3.0, weight_decay=0.5).param_groups
    settings = {group["name"]: (group["lr"], group["weight_decay"], len(group["params"])) for group in groups}
    assert settings == {
        "backbone": (0.1, 0.5, 1),
        "backbone, no decay": (0.1, 0.0, 3),
        "last layers": (3.0, 0.5, 1),
        "last layers, no decay": (3.0, 0.0, 1),
    }


def test_beta2_of_adamw_is_used() -> None:
    final_weights = []
    for beta2 in (0.999, 0.9):
        torch.manual_seed(0)
        net = Net()
        optimizer = build_optimizer(net, name="adamw", lr=0.01, beta2=beta2)
        train(net, optimizer, 3)
        final_weights.append(net.head.weight.detach())
        assert {group["betas"] for group in optimizer.param_groups} == {(0.9, beta2)}
    assert not torch.equal(*final_weights)


def test_frozen_parameters_are_not_optimized() -> None:
    net = Net()
    net.backbone.requires_grad_(False)
    groups = build_optimizer(net, lr=1.0).param_groups
    assert sum(len(group["params"]) for group in groups) == 2
    net.requires_grad_(False)
    with pytest.raises(DataError, match="--freeze"):
        build_optimizer(net, lr=1.0)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_state_round_trip_continues_bit_for_bit(name: str) -> None:
    torch.manual_seed(0)
    uninterrupted = Net()
    optimizer = build_optimizer(uninterrupted, name=name, lr=0.01)
    train(uninterrupted, optimizer, 3)
    tensors = {key: tensor.clone() for key, tensor in optimizer_tensors(uninterrupted, optimizer).items()}
    resumed, control = Net(), Net()
    for net in (resumed, control):
        net.load_state_dict(uninterrupted.state_dict())
    train(uninterrupted, optimizer, 3)

    resumed_optimizer = build_optimizer(resumed, name=name, lr=0.01)
    load_optimizer_tensors(resumed, resumed_optimizer, tensors)
    train(resumed, resumed_optimizer, 3)
    train(control, build_optimizer(control, name=name, lr=0.01), 3)
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted.parameters(), resumed.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(uninterrupted.parameters(), control.parameters(), strict=True))


def test_state_of_another_model_is_rejected() -> None:
    net = Net()
    optimizer = build_optimizer(net, lr=0.01)
    train(net, optimizer, 1)
    tensors = optimizer_tensors(net, optimizer)
    net.backbone.requires_grad_(False)
    with pytest.raises(DataError, match="freeze"):
        load_optimizer_tensors(net, build_optimizer(net, lr=0.01), tensors)
