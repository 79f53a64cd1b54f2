"""Weights of timm's networks: fetched by timm, and renamed to what this project's models call them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from detseg.errors import DataError
from detseg.models.base import FreezableModel
from detseg.models.timm_backbone import PREFIX, import_timm

State = dict[str, Tensor]

OURS = ("backbone.body.network.", "network.")
"""What our detectors and classifiers put before the names of timm's network."""


def fetch_timm(backbone: str) -> tuple[State, str]:
    """timm's published weights of a whole network, and what a report calls them.

    Args:
        backbone: such as "timm:convnext_atto".

    Raises:
        DataError: timm is missing, has no weights of this network, or they cannot be fetched: names the file, its
            address and the other ways.
    """
    name = backbone.removeprefix(PREFIX)
    timm = import_timm(name)
    config = timm.get_pretrained_cfg(name)
    if not (config.hf_hub_id or config.url):
        raise DataError(f"timm has no published weights of {name}; start from --weights PATH or --weights none")
    place, page = _place(timm, config)
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm, its hub and the network under it raise what they like
        reason = str(error).split("\n")[0] or type(error).__name__
        raise DataError(
            f"the weights of {backbone} are wanted but not at {place}, where timm looks first, or corrupt, and could not "
            f"be downloaded from {page} ({reason}). Fetch the file from there on a machine with a network and give it "
            "as --weights PATH, or start from --weights none"
        ) from error
    licence = f", licence {config.license}" if config.license else ""
    return dict(network.state_dict()), f"{config.hf_hub_id or config.url}{licence}"


def timm_names(state: State, model: FreezableModel, backbone: str) -> State:
    """The tensors of a file under the names that ``model`` has for them.

    The file holds a timm network whole, one for maps (whose names timm flattens: ``stem_0`` for ``stem.0``), or a
    detector or classifier of this project. What fits nowhere keeps its name.
    """
    mine = OURS[model.description.task == "classify"]
    own = _by_plain_name([name for name in model.state_dict() if name.startswith(mine)], mine)
    if any(name.startswith(OURS[0]) for name in state):
        theirs = OURS[0]
    else:  # a network that timm made may have a child of our name, but also others
        theirs = OURS[1] if all(name.startswith((OURS[1], "classifier.")) for name in state) else ""
    found = _by_plain_name([name for name in state if name.startswith(theirs)], theirs)
    renamed = {name: tensor for name, tensor in state.items() if name not in found.values()}
    head = _head(backbone) if model.description.task == "classify" and not theirs else None
    for plain, name in found.items():
        if head is not None and name in (f"{head}.weight", f"{head}.bias"):
            tensor = state[name]  # of a linear layer, or of the same as a 1x1 convolution
            renamed[f"classifier{name.removeprefix(head)}"] = tensor.flatten(1) if tensor.ndim == 4 else tensor
        else:
            renamed[own.get(plain, name)] = state[name]
    return renamed


def _by_plain_name(names: list[str], outside: str) -> dict[str, str]:
    """``name -> name``, the first without ``outside`` and flattened."""
    inside = {name: name.removeprefix(outside) for name in names}
    if all(name.startswith("model.") for name in inside.values()):  # how timm holds a transformer for its maps
        inside = {name: plain.removeprefix("model.") for name, plain in inside.items()}
    return {plain.replace(".", "_"): name for name, plain in inside.items()}


def _head(backbone: str) -> str | None:
    """Name of timm's last layer, where our ``classifier`` stands; None for a distilled network, which has two."""
    name = backbone.removeprefix(PREFIX)
    head = import_timm(name).get_pretrained_cfg(name).classifier
    return head if isinstance(head, str) else None


def _place(timm: Any, config: Any) -> tuple[str, str]:
    """Where the weights are kept, and the address that they come from."""
    if config.hf_hub_id:
        from huggingface_hub import constants

        folder = f"models--{config.hf_hub_id.replace('/', '--')}"
        return f"{constants.HF_HUB_CACHE}/{folder}", f"{constants.ENDPOINT}/{config.hf_hub_id}"
    from detseg.models.weights.published import cache_path

    return str(cache_path(config.url)), config.url
