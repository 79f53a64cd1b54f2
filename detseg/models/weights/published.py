"""Load torchvision's published weights from torch's cache or by download; errors state which file is missing."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from detseg.errors import DataError


def file_name(url: str) -> str:
    """Return the name of the file of ``url`` in torch's cache."""
    return Path(urlparse(url).path).name


def cache_path(url: str) -> Path:
    """Return where torch looks for the file of ``url`` before a download (inside ``TORCH_HOME`` if that is set)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file_name(url)


def fetch(url: str, imagenet_url: str | None = None) -> dict[str, Tensor]:
    """Return the state dict at ``url``, from torch's cache if available; downloads are verified by the name's hash.

    Args:
        imagenet_url: of the ImageNet weights of the same model, which an error suggests.

    Raises:
        DataError: no network, or a corrupt file; with the file name, its URL, its path in the cache and alternatives.
    """
    cached = cache_path(url)
    was_cached = cached.exists()
    try:
        state: Any = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, http.client.HTTPException) as error:
        name = f"{file_name(url)}{' (--weights imagenet)' if url == imagenet_url else ''}"
        raise DataError(
            f"{name} is required, but is not in torch's cache at {cached} and could not be downloaded "
            f"from {url} ({_first_line(error)}). Copy the file to the cache, or use other weights: --weights PATH "
            f"(your own file), {_imagenet(imagenet_url, url)}--weights bundled (small weights included in detseg; "
            "without --model), or --weights none"
        ) from error
    except Exception as error:  # a wrong hash, or corrupt bytes, which can raise any exception
        source = f"the copy at {cached}" if was_cached else f"the download from {url}"
        raise DataError(f"{file_name(url)}: {source} is corrupt ({_first_line(error)}); delete it and retry") from error
    return dict(state)


def _imagenet(imagenet_url: str | None, missing_url: str) -> str:
    """Return the suggestion of ImageNet weights, and whether the cache has their file; "" if it is the missing one."""
    if imagenet_url is None or imagenet_url == missing_url:
        return ""
    place = "is in the cache" if cache_path(imagenet_url).is_file() else "must be in the cache, and is not there either"
    return f"--weights imagenet (backbone only; {file_name(imagenet_url)} {place}), "


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0] or type(error).__name__
