"""Models: names, construction, starting weights, freezing, inputs and outputs."""

from typing import Any

from detseg import old_names
from detseg.models.build import MODELS, Model, ModelDescription, build_model, describe
from detseg.models.classifier import Classifier
from detseg.models.detector import Detector
from detseg.models.freeze import LEVELS, freeze, part_table, set_trainable_layers
from detseg.models.losses_in_eval_mode import losses_in_eval_mode
from detseg.models.one_stage import OneStageDetector
from detseg.models.own_classifier import OwnClassifier
from detseg.models.weights.load import LoadReport, load_weights
from detseg.models.weights.starting_weights import StartingWeights, read_state_dict

__all__ = [
    "LEVELS",
    "MODELS",
    "Classifier",
    "Detector",
    "LoadReport",
    "Model",
    "ModelDescription",
    "OneStageDetector",
    "OwnClassifier",
    "StartingWeights",
    "build_model",
    "describe",
    "freeze",
    "load_weights",
    "losses_in_eval_mode",
    "part_table",
    "read_state_dict",
    "set_trainable_layers",
]


def __getattr__(name: str) -> Any:
    return old_names.attribute(__name__, name)
