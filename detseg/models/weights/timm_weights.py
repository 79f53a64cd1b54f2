"""Download weights of timm's networks with timm, and rename tensors to the names of this project's models."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from detseg.errors import DataError
from detseg.models.base import FreezableModel
from detseg.models.timm_backbone import PREFIX, import_timm

State = dict[str, Tensor]

DETECTOR_PREFIX, CLASSIFIER_PREFIX = "backbone.body.network.", "network."
"""Prefixes of the names of timm's network in this project's detectors and classifiers."""


def timm_origin(backbone: str) -> str:
    """Return the name and licence of timm's published weights, for reports.

    Args:
        backbone: such as "timm:convnext_atto".

    Raises:
        DataError: timm is not installed, or has no weights for this network.
    """
    config = _published_config(backbone)
    return f"{config.hf_hub_id or config.url}{f', licence {config.license}' if config.license else ''}"


def fetch_timm(backbone: str) -> State:
    """Return timm's published weights of a whole network.

    Args:
        backbone: such as "timm:convnext_atto".

    Raises:
        DataError: timm is not installed, has no weights for this network, or the download fails; with the cache
            path, the address and alternatives.
    """
    name, config = backbone.removeprefix(PREFIX), _published_config(backbone)
    timm = import_timm(name)
    cached, url = _cache_path_and_url(timm, config)
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm, the hub client and the network can raise any exception
        reason = str(error).split("\n")[0] or type(error).__name__
        raise DataError(
            f"the weights of {backbone} are not in the cache at {cached}, or are corrupt, and could not be downloaded "
            f"from {url} ({reason}). Download the file on a machine with a network connection and use --weights PATH, "
            "or use --weights none"
        ) from error
    return dict(network.state_dict())


def timm_names(state: State, model: FreezableModel, backbone: str) -> State:
    """Rename the tensors of a file to the names in ``model``.

    The file contains a whole timm network, a ``features_only`` one (with names flattened by timm: ``stem_0`` for
    ``stem.0``), or a detector or classifier of this project. Tensors without a counterpart keep their names.
    """
    model_prefix = CLASSIFIER_PREFIX if model.description.task == "classify" else DETECTOR_PREFIX
    model_names = _by_flat_name([name for name in model.state_dict() if name.startswith(model_prefix)], model_prefix)
    if any(name.startswith(DETECTOR_PREFIX) for name in state):
        prefix = DETECTOR_PREFIX
    else:  # a network built by timm may also have a child called "network", but it has other children too
        own_file = all(name.startswith((CLASSIFIER_PREFIX, "classifier.")) for name in state)
        prefix = CLASSIFIER_PREFIX if own_file else ""
    file_names = _by_flat_name([name for name in state if name.startswith(prefix)], prefix)
    renamed = {name: tensor for name, tensor in state.items() if name not in file_names.values()}
    head = _head(backbone) if model.description.task == "classify" and not prefix else None
    for flat_name, name in file_names.items():
        if head is not None and name in (f"{head}.weight", f"{head}.bias"):
            tensor = state[name]  # of a linear layer, or of an equivalent 1x1 convolution
            renamed[f"classifier{name.removeprefix(head)}"] = tensor.flatten(1) if tensor.ndim == 4 else tensor
        else:
            renamed[model_names.get(flat_name, name)] = state[name]
    return renamed


def _by_flat_name(names: list[str], prefix: str) -> dict[str, str]:
    """Return ``flat name -> name``; the flat name has no ``prefix``, and underscores instead of dots."""
    inner = {name: name.removeprefix(prefix) for name in names}
    if all(inner_name.startswith("model.") for inner_name in inner.values()):  # timm's features_only transformers
        inner = {name: inner_name.removeprefix("model.") for name, inner_name in inner.items()}
    return {inner_name.replace(".", "_"): name for name, inner_name in inner.items()}


def _head(backbone: str) -> str | None:
    """Return the name of timm's last layer, our ``classifier``; None for a distilled network, which has two."""
    name = backbone.removeprefix(PREFIX)
    head = import_timm(name).get_pretrained_cfg(name).classifier
    return head if isinstance(head, str) else None


def _published_config(backbone: str) -> Any:
    """Return timm's entry of the weights that it publishes for a backbone."""
    name = backbone.removeprefix(PREFIX)
    config = import_timm(name).get_pretrained_cfg(name)
    if not (config.hf_hub_id or config.url):
        raise DataError(f"timm has no published weights for {name}; use --weights PATH or --weights none")
    return config


def _cache_path_and_url(timm: Any, config: Any) -> tuple[str, str]:
    """Return the path of the weights in the cache, and their URL."""
    if config.hf_hub_id:
        from huggingface_hub import constants

        folder = f"models--{config.hf_hub_id.replace('/', '--')}"
        return f"{constants.HF_HUB_CACHE}/{folder}", f"{constants.ENDPOINT}/{config.hf_hub_id}"
    from detseg.models.weights.published import cache_path

    return str(cache_path(config.url)), config.url
