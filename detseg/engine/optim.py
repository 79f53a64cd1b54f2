"""Build optimizers with parameter groups; save and load their state by parameter name."""

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
    """Build SGD or AdamW over the trainable parameters of ``model``, in up to six groups.

    The learning rate is ``lr * backbone_lr_mult`` for the backbone, ``lr * head_lr_mult`` for the last layers and
    ``lr`` for the rest. The model defines these parts (``is_backbone_parameter``, ``is_last_parameter``). For a model
    without these methods, the backbone is every parameter whose dotted name contains "backbone", and there are no last
    layers. Weights of norm layers and all biases have no weight decay.

    Args:
        momentum: momentum of SGD.
        beta2: of AdamW: decay rate of the mean of squared gradients, over about 1 / (1 - beta2) updates.

    Raises:
        DataError: unknown optimizer, or every parameter is frozen.
    """
    if name not in OPTIMIZERS:
        raise DataError(f"unknown optimizer {name!r}; choose one of {', '.join(OPTIMIZERS)}")
    lr_mults = {"backbone": backbone_lr_mult, "last layers": head_lr_mult, "heads": 1.0}
    groups: dict[tuple[str, bool], list[Tensor]] = {(part, decay): [] for part in lr_mults for decay in (True, False)}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[_model_part(model, parameter_name), parameter.ndim > 1].append(parameter)
    if not any(groups.values()):
        raise DataError("every parameter is frozen, so there is nothing to train; choose a lower --freeze")
    settings = [
        {
            "params": parameters,
            "lr": lr * lr_mults[part],
            "weight_decay": weight_decay if decay else 0.0,
            "name": part if decay else f"{part}, no decay",
        }
        for (part, decay), parameters in groups.items()
        if parameters
    ]
    if name == "sgd":
        return torch.optim.SGD(settings, lr=lr, momentum=momentum, fused=True)
    return torch.optim.AdamW(settings, lr=lr, betas=(0.9, beta2), fused=True)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer state as ``"<parameter name>|<state name>" -> tensor`` (numbers become 0-dim tensors)."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}|{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None
    }


def load_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the state of :func:`optimizer_tensors` into an optimizer built with the same settings for the same model.

    Raises:
        DataError: the state has a parameter that this optimizer does not train, or lacks one that it trains.
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
    mismatched = sorted(set(states) ^ set(ordered)) if states else []
    if mismatched:
        raise DataError(
            f"the saved optimizer state and this model differ in {len(mismatched)} trained parameters, first "
            f"{mismatched[0]}; resume with the --freeze and --model that the run was started with"
        )
    state_dict["state"] = {
        index: {key: _with_layout_of(parameters[name], value) for key, value in states[name].items()}
        for index, name in enumerate(ordered)
        if name in states
    }
    optimizer.load_state_dict(state_dict)


def _with_layout_of(parameter: Tensor, value: Tensor) -> Tensor:
    """``value`` in the memory format of its parameter: fused kernels pair elements by their position in memory."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


def _model_part(model: nn.Module, parameter_name: str) -> str:
    """ "backbone", "last layers" or "heads"."""
    is_backbone, is_last = (getattr(model, f"is_{part}_parameter", None) for part in ("backbone", "last"))
    if callable(is_last) and is_last(parameter_name):
        return "last layers"
    inside = is_backbone(parameter_name) if callable(is_backbone) else "backbone" in parameter_name.split(".")
    return "backbone" if inside else "heads"
