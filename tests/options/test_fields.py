"""Every option has a text, its numbers a range in one place, and its help comes from what is used."""

from __future__ import annotations

import types
from dataclasses import dataclass, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from detseg.errors import DataError
from detseg.options import (
    BaselineConfig,
    ConvertConfig,
    EvaluateConfig,
    FeedingConfig,
    InspectConfig,
    PredictConfig,
    PretrainConfig,
    SpeedConfig,
    TrainConfig,
    TransferConfig,
)
from detseg.options.defaults import DEMO
from detseg.options.field import Default, Range, check_ranges, help_text, option

CONFIGS: tuple[type[Any], ...] = (
    TrainConfig, EvaluateConfig, PredictConfig, InspectConfig, ConvertConfig, PretrainConfig, BaselineConfig,
    TransferConfig, SpeedConfig, FeedingConfig,
)  # fmt: skip


def is_number(hint: Any) -> bool:
    """Whether a type includes int or float, also in a list."""
    if get_origin(hint) in (Union, types.UnionType, list):
        return any(is_number(part) for part in get_args(hint))
    return hint in (int, float)


def without_range(config: type[Any]) -> list[str]:
    hints = get_type_hints(config)
    return [item.name for item in fields(config) if is_number(hints[item.name]) and item.metadata["range"] is None]


@dataclass(frozen=True)
class Forgotten:
    size: int | None = option(None, "size")


@pytest.mark.parametrize("config", CONFIGS)
def test_every_number_has_a_range(config: type[Any]) -> None:
    assert without_range(config) == []
    assert without_range(Forgotten) == ["size"], "control"


@pytest.mark.parametrize("config", CONFIGS)
def test_every_option_has_a_text_that_is_no_sentence_of_its_own(config: type[Any]) -> None:
    for item in fields(config):
        text = help_text(item)
        assert item.metadata["text"]
        assert item.metadata["text"][-1] != "." or item.metadata["text"].endswith("..."), text
        assert "Default" not in item.metadata["text"], "it is added, so that it is stated once"
        assert text.count("Default:") <= 1


def test_help_states_the_defaults_that_are_used() -> None:
    texts = {item.name: help_text(item, DEMO.get(item.name)) for item in fields(TrainConfig)}
    assert texts["epochs"] == "epochs to train. Default: 10 (as the published Penn-Fudan run); demo: 16"
    assert texts["eval_epochs"].endswith("Default: 1; demo: 8")
    assert "480 for detectors on CPU (a CPU needs twice the time for 800)" in texts["image_size"]
    assert "; demo: 240" in texts["image_size"]
    assert texts["momentum"] == "momentum of sgd. Default: 0.9 (as in torchvision)"
    assert "sgd for detectors (usual for R-CNN); sgd for classifiers (as the published" in texts["optimizer"]
    for name, value in DEMO.items():
        assert f"demo: {value:g}" in texts[name] if isinstance(value, float) else f"demo: {value}" in texts[name]


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, float("nan"), float("inf")])
def test_a_number_out_of_range_is_refused_wherever_it_comes_from(value: float) -> None:
    with pytest.raises(DataError, match=r"--ema .*: it must be a number above 0 and below 1, such as 0\.999"):
        TrainConfig(ema=value)
    TrainConfig(ema=0.5)  # control


def test_all_wrong_numbers_are_named_at_once() -> None:
    with pytest.raises(DataError, match=r"--epochs 0: it must be at least 1; --lr 0: it must be a number above 0"):
        TrainConfig(lr=0.0, epochs=0)
    with pytest.raises(DataError, match=r"--seeds \[0, -1\]: it must be at least 0"):
        TransferConfig(seeds=[0, -1])


def test_ranges() -> None:
    half_open = Range(least=0, below=1)
    assert [half_open.contains(value) for value in (0, 0.99, 1, -0.01)] == [True, True, False, False]
    assert str(Range(least=0, most=1)) == "at least 0 and at most 1"


def test_a_default_may_depend_on_conditions() -> None:
    @dataclass(frozen=True)
    class Config:
        size: int | None = option(
            None, "size", chosen=[Default(1, "small", "on CPU"), Default(2, "large", "on CUDA")], least=1
        )
        names: list[str] = option([], "names")

    first, second = fields(Config)
    assert help_text(first) == "size. Default: 1 on CPU (small); 2 on CUDA (large)"
    assert help_text(second) == "names"
    assert Config().names is not Config().names, "a list is not shared"
    with pytest.raises(DataError, match="--size 0: it must be at least 1"):
        check_ranges(Config(size=0))
