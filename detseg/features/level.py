"""Choose the layer whose features are cached, and measure their size and computing time."""

from __future__ import annotations

import time

import torch

from detseg.datasets import Views
from detseg.errors import DataError
from detseg.models import Model
from detseg.runtime.reporter import Reporter, silent

MAX_NECK_RATIO = 2.0
"""Features of a frozen neck are cached unless they need more than this multiple of the memory of the backbone's; then
the neck, which is fast, runs in every step."""


def deepest_level(model: Model, where: str) -> str | None:
    """Return the deepest level at which features can be cached; None without a cache.

    Args:
        where: "auto", "off", "memory" or "disk".

    Raises:
        DataError: ``where`` is memory or disk, but no backbone is frozen.
    """
    levels = model.levels()
    if where == "off" or (where == "auto" and not levels):
        return None
    if not levels:
        raise DataError(f"--cache {where}: only features of a frozen backbone can be cached; add --freeze backbone")
    return levels[0]


def measured_level(
    model: Model, views: Views, level: str, dtype: torch.dtype, reporter: Reporter | None = None
) -> tuple[str, int, float]:
    """Return the level to cache, and for the largest of a few images the bytes of one view's features and the seconds
    to compute them."""
    rows = range(0, len(views), max(1, len(views) // 4))
    image = max((views.sample(row, 0)[0] for row in rows), key=lambda tensor: tensor.numel())
    image = image.to(next(model.parameters()).device)
    sizes, seconds = {}, 0.0
    levels = model.levels()
    for name in (reporter or silent()).progress(levels, "measuring the features", total=len(levels), unit="level"):
        model.frozen_features([image], name, alone=True)
        began = time.perf_counter()
        features = model.frozen_features([image], name, alone=True)[0]
        seconds = time.perf_counter() - began if name == level else seconds
        sizes[name] = features.with_maps(dtype).nbytes
    if sizes[level] > MAX_NECK_RATIO * sizes.get("backbone", sizes[level]):
        level = "backbone"
    return level, sizes[level], seconds
