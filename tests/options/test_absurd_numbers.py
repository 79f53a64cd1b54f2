"""Numbers that cannot work are refused, whichever option they are given to; what is accepted has a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from detseg.annotations import AnnotationTable
from detseg.annotations.builder import TableBuilder
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.errors import DataError
from detseg.options import TrainConfig
from detseg.options.field import check_ranges, option
from detseg.runtime.machine import MachineFacts
from detseg.training.make_plan import make_plan
from tests.options.test_fields import CONFIGS, is_number

ABSURD = (math.nan, math.inf, -math.inf, -1, -1e30, 1e30, 10**400, 0, 0.5)
WORKING_ZEROS = (
    *("val", "test", "trainable_layers", "clip_norm", "patience", "skip_nonfinite", "momentum"),
    *("weight_decay", "warmup_steps", "milestones", "cached_views", "decoded_limit", "workers", "seed", "value_range"),
    *("seeds", "min_score", "tile", "min_visible", "empty_tiles"),
)
"""Options for which 0 has a meaning."""


def numbers_of(config: type[Any]) -> list[tuple[str, bool, bool]]:
    """Name of each option with numbers, whether it is a list, and whether its numbers are whole."""
    hints = get_type_hints(config)
    kinds = {item.name: get_args(hints[item.name]) or (hints[item.name],) for item in fields(config)}
    return [
        (name, any(part in (list[int], list[float]) for part in parts), any(part in (int, list[int]) for part in parts))
        for name, parts in kinds.items()
        if is_number(hints[name])
    ]


def is_refused(config: type[Any], name: str, value: Any) -> bool:
    try:
        config(**{name: value})
    except DataError as error:
        return is_one_line_about(name, error)
    return False


def is_one_line_about(name: str, error: DataError) -> bool:
    return f"--{name.replace('_', '-')} " in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("config", CONFIGS)
def test_absurd_numbers_are_refused(config: type[Any]) -> None:
    for name, is_list, _ in numbers_of(config):
        refused = {value: is_refused(config, name, [1, value] if is_list else value) for value in ABSURD}
        below_zero = [value for value in (-1, -1e30) if not refused[value]]
        assert below_zero == ([-1, -1e30] if name == "value_range" else []), name
        assert all(refused[value] for value in (math.inf, -math.inf, 10**400)), name
        assert refused[1e30] or name == "value_range", name
        assert is_refused(config, name, [math.nan] if is_list else math.nan), name
        assert refused[0] == (name not in WORKING_ZEROS and (config, name) != (TrainConfig, "batch_size")), name


@dataclass(frozen=True)
class WithoutLimit:
    rate: float = option(0.1, "rate", above=0, limit=math.inf)

    def __post_init__(self) -> None:
        check_ranges(self)


def test_control_a_lower_bound_alone_accepts_absurd_numbers() -> None:
    assert WithoutLimit(rate=1e30).rate == 1e30
    with pytest.raises(DataError, match=r"--lr 1e\+30: it must be at most 1000"):
        TrainConfig(lr=1e30)


@cache
def table() -> AnnotationTable:
    rng = np.random.default_rng(0)
    builder = TableBuilder(ClassMap(("a", "b")), "", source="numbers")
    for image in range(6):
        builder.add_image(f"{image}.jpg", (240, 320), image_id=image + 1)
        builder.add_instance([*rng.uniform(0, 150, 2), 40, 50], 1 + image % 2, where=f"image {image}")
    return builder.build()


EXTREMES = (1, 2, 3.0, 1e9, 1e6, 1e5, 1024, 100, 1e-30, 0)


@pytest.mark.parametrize("model", ["fasterrcnn_mobilenet_v3_large_fpn_slim", "fcos_mobilenet_v2_fpn_slim"])
def test_a_number_that_is_accepted_has_a_plan_or_a_refusal(model: str) -> None:
    planned, unclear = 0, []
    for name, is_list, is_whole in numbers_of(TrainConfig):
        for number in EXTREMES:
            value = int(number) if is_whole else number
            given: Any = [value] * 5 if is_list else value
            try:
                config = TrainConfig(data="x", task="detect", model=model, weights="none", **{name: given})
                plan = make_plan(config, table(), table(), MachineFacts("cpu", 2, 8 * 2**30))
            except DataError as error:
                unclear += [] if is_one_line_about(name, error) else [(given, str(error))]
            else:
                planned += name in plan.values()
    assert unclear == []
    assert planned > 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--anchor-sizes", "[-1,16,32,64,128]"), "--anchor-sizes [-1, 16, 32, 64, 128]: it must be at least 1"),
        (("--momentum", "5"), "--momentum 5: it must be at least 0 and below 1"),
        (("--lr", "nan"), "--lr nan: it must be a number above 0"),
        (("--lr", "9" * 400), "--lr inf: it must be a number above 0"),
        (("--epochs", "9" * 400), "it must be at most 1e+06"),
        (("--workers", "1000000"), "--workers 1000000: it must be at most 1024"),
        (("--checkpoint-every", "9" * 5000), "use steps such as 500, or minutes such as 10m"),
        (("--loss-weights", "box=1e30"), "must be a number of at least 0 and at most 1e+06"),
        (("--anchor-sizes", "[]"), "--anchor-sizes []: "),
        (("--value-range", "[5]"), "--value-range"),
        (("--value-range", "[9,2]"), "--value-range"),
    ],
)
def test_one_line_on_the_command_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], small: tuple[str, ...], parts: Any
) -> None:
    try:
        code = main(["train", str(parts), *small, "--schedule", "multistep", *words, "--output", str(parts / "run")])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code in (1, 2)
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (parts / "run").exists()
