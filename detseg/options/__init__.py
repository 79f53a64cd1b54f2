"""Options of all commands: names, types, defaults, reasons and ranges; and the plan of a run. No torch.

The classes are imported on first use: a command needs only its own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detseg.options.benchmark import BaselineConfig, FeedingConfig, SpeedConfig, TransferConfig
    from detseg.options.commands import (
        ClientConfig,
        ConvertConfig,
        DescribeConfig,
        EvaluateConfig,
        ExportConfig,
        InspectConfig,
        PredictConfig,
        PretrainConfig,
        SelfcheckConfig,
        ServeConfig,
    )
    from detseg.options.data import DataConfig, Format
    from detseg.options.training import TrainConfig

__all__ = [
    "BaselineConfig",
    "ClientConfig",
    "ConvertConfig",
    "DataConfig",
    "DescribeConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FeedingConfig",
    "Format",
    "InspectConfig",
    "PredictConfig",
    "PretrainConfig",
    "SelfcheckConfig",
    "ServeConfig",
    "SpeedConfig",
    "TrainConfig",
    "TransferConfig",
]

_MODULE_OF = {
    "BaselineConfig": "benchmark",
    "ClientConfig": "commands",
    "ConvertConfig": "commands",
    "DataConfig": "data",
    "DescribeConfig": "commands",
    "EvaluateConfig": "commands",
    "ExportConfig": "commands",
    "FeedingConfig": "benchmark",
    "Format": "data",
    "InspectConfig": "commands",
    "PredictConfig": "commands",
    "PretrainConfig": "commands",
    "SelfcheckConfig": "commands",
    "ServeConfig": "commands",
    "SpeedConfig": "benchmark",
    "TrainConfig": "training",
    "TransferConfig": "benchmark",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
