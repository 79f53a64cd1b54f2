"""Options of all commands: names, types, defaults, reasons and ranges; and the plan of a run. No torch."""

from detseg.options.benchmark import BaselineConfig, SpeedConfig, TransferConfig
from detseg.options.commands import ConvertConfig, EvaluateConfig, InspectConfig, PredictConfig, PretrainConfig
from detseg.options.data import DataConfig, Format
from detseg.options.training import TrainConfig

__all__ = [
    "BaselineConfig",
    "ConvertConfig",
    "DataConfig",
    "EvaluateConfig",
    "Format",
    "InspectConfig",
    "PredictConfig",
    "PretrainConfig",
    "SpeedConfig",
    "TrainConfig",
    "TransferConfig",
]
