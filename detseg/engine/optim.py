"""Optimizers with layer groups, and their state by parameter name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detseg.errors import DataError

OPTIMIZERS = ("sgd", "adamw")


def build_optimizer(
    model: nn.Module,
    *,
    name: str = "sgd",
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    backbone_lr_mult: float = 1.0,
    head_lr_mult: float = 1.0,
    beta2: float = 0.999,
) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters of ``model``, in up to six groups.

    Parameters of the backbone learn at ``lr * backbone_lr_mult``, those of the last layers at ``lr * head_lr_mult``, the rest at ``lr``.
    The model says which they are (``is_backbone_parameter``, ``is_last_parameter``); of another the backbone is all whose name
    has a part "backbone", and no layer is the last. Weights of norm layers and all biases do not decay.

    Args:
        momentum: of SGD.
        beta2: of AdamW: how slowly its mean of squared gradients forgets, over about 1 / (1 - beta2) updates.

    Raises:
        DataError: unknown optimizer, or nothing is left to train.
    """
    if name not in OPTIMIZERS:
        raise DataError(f"optimizer {name!r} is not known; known are {', '.join(OPTIMIZERS)}")
    factors = {"backbone": backbone_lr_mult, "last layers": head_lr_mult, "heads": 1.0}
    groups: dict[tuple[str, bool], list[Tensor]] = {(part, decays): [] for part in factors for decays in (True, False)}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[_part(model, parameter_name), parameter.ndim > 1].append(parameter)
    if not any(groups.values()):
        raise DataError("every parameter is frozen, so there is nothing to train; choose a lower --freeze")
    settings = [
        {
            "params": parameters,
            "lr": lr * factors[part],
            "weight_decay": weight_decay if decays else 0.0,
            "name": part if decays else f"{part}, no decay",
        }
        for (part, decays), parameters in groups.items()
        if parameters
    ]
    if name == "sgd":
        return torch.optim.SGD(settings, lr=lr, momentum=momentum, fused=True)
    return torch.optim.AdamW(settings, lr=lr, betas=(0.9, beta2), fused=True)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as ``"<parameter name>|<state name>" -> tensor`` (numbers become 0-dim tensors)."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}|{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }


def load_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo :func:`optimizer_tensors` on an optimizer built with the same settings over the same model.

    Raises:
        DataError: the state names a parameter that this optimizer does not train, or lacks one that it does.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        parameter_name, state_name = key.rsplit("|", 1)
        states.setdefault(parameter_name, {})[state_name] = tensor
    state_dict: dict[str, Any] = optimizer.state_dict()
    state_dict["state"] = {}
    parameters = {names[id(parameter)]: parameter for group in optimizer.param_groups for parameter in group["params"]}
    ordered = list(parameters)
    different = sorted(set(states) ^ set(ordered)) if states else []
    if different:
        raise DataError(
            f"the saved optimizer state and this model differ in {len(different)} trained parameters, first "
            f"{different[0]}; resume with the --freeze and --model that the run began with"
        )
    state_dict["state"] = {
        index: {key: _laid_out(value, parameters[name]) for key, value in states[name].items()}
        for index, name in enumerate(ordered)
        if name in states
    }
    optimizer.load_state_dict(state_dict)


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """``value`` in the memory format of its parameter: fused kernels pair the numbers by their place in memory."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


def _part(model: nn.Module, parameter_name: str) -> str:
    """ "backbone", "last layers" or "heads"."""
    backbone, last = (getattr(model, f"is_{part}_parameter", None) for part in ("backbone", "last"))
    if callable(last) and last(parameter_name):
        return "last layers"
    inside = backbone(parameter_name) if callable(backbone) else "backbone" in parameter_name.split(".")
    return "backbone" if inside else "heads"
