"""torchvision's published weights: found in torch's cache or downloaded, or one clear word about what is missing."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from detseg.errors import DataError


def file_name(url: str) -> str:
    """The name under which torch keeps the file of ``url``."""
    return Path(urlparse(url).path).name


def cache_path(url: str) -> Path:
    """Where torch looks for the file of ``url`` before it downloads (below ``TORCH_HOME`` if that is set)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file_name(url)


def fetch(url: str) -> dict[str, Tensor]:
    """The state dict at ``url``, from torch's cache if it is there; a download is checked against the name's hash.

    Raises:
        DataError: no network, or a corrupt file: names the file, its URL, its place in the cache and the other ways.
    """
    cached = cache_path(url)
    was_cached = cached.exists()
    try:
        state: Any = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{file_name(url)} is wanted but not at {cached}, where torch looks first, and could not be downloaded "
            f"from {url} ({_first_line(error)}). Put the file there, or start from something else: --weights PATH "
            "(a file of yours), --weights imagenet (another file, of the backbone), --weights bundled (small weights that "
            "come with detseg; leave --model out), or --weights none"
        ) from error
    except Exception as error:  # a wrong hash, or corrupt bytes, which raise whatever they happen to spell
        place = f"the copy at {cached}" if was_cached else f"what came from {url}"
        raise DataError(f"{file_name(url)}: {place} is corrupt ({_first_line(error)}); delete it and retry") from error
    return dict(state)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0] or type(error).__name__
