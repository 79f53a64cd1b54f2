"""Select the options that a comparison hands on to each of its runs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from detseg.options import TrainConfig
from detseg.options.benchmark import ComparisonOptions


def training_options(config: ComparisonOptions) -> dict[str, Any]:
    """Return the options of ``config`` that are also options of ``train``, by name."""
    names = {item.name for item in fields(TrainConfig)}
    return {item.name: getattr(config, item.name) for item in fields(config) if item.name in names}
