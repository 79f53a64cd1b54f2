"""Numbers parsed directly from text: equal to those of Python's JSON parser, or None."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detseg.annotations.formats.coco.number_text import read_rings


def text(values: list[list[list[float]]], *, spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return "".join(json.dumps(value, separators=separators) + "," for value in values).encode()


@pytest.mark.parametrize(
    "values",
    [
        [[[0]]],
        [[[1.5]]],
        [[[1, 2.25, 99999.99, 0.01, 640, 0.5]]],
        [[[1, 2], [3.1]], [[4]], [[5.05], [6], [7, 8, 9]]],
        [[[12345]], [[1.0, 10.0, 100.0, 1000.0, 10000.0]]],
    ],
)
@pytest.mark.parametrize("spaced", [False, True])
def test_rings(values: list[list[list[float]]], spaced: bool) -> None:
    parsed = read_rings(text(values, spaced=spaced))
    assert parsed is not None
    assert (parsed.numbers / 100).tolist() == [number for value in values for ring in value for number in ring]
    assert parsed.lengths.tolist() == [len(ring) for value in values for ring in value]
    assert parsed.counts.tolist() == [len(value) for value in values]


def test_random_rings() -> None:
    rng = np.random.default_rng(0)
    for decimals in (0, 1, 2):
        values = [
            [
                np.round(rng.uniform(0, 10 ** rng.uniform(-2, 5), rng.integers(1, 40)), decimals).tolist()
                for _ in range(3)
            ]
            for _ in range(200)
        ]
        parsed = read_rings(text(values))
        assert parsed is not None
        assert (parsed.numbers / 100).tolist() == [number for value in values for ring in value for number in ring]


def test_whole_numbers() -> None:
    values: list[list[list[float]]] = [[[0, 7, 12345678], [99999999]], [[42]]]
    parsed = read_rings(text(values), whole=True)
    assert parsed is not None
    assert parsed.numbers.tolist() == [0, 7, 12345678, 99999999, 42]
    for other in ("[[1.0]],", "[[123456789]],", "[[-1]],"):
        assert read_rings(other.encode(), whole=True) is None


@pytest.mark.parametrize(
    "part",
    [
        "[]", "[[]]", "[[1],[]]", "[[],[1]]", "1", "[1]", "[1,2]", "[[1],2]", "[2,[1]]", "[[1],2,[3]]", "[[[1]]]",
        "[[1,[2]]]", "[[[1],2]]", "[[1],[[2]]]", "[[-1]]", "[[1e2]]", "[[0.125]]", "[[123456]]", "[[123456.5]]",
        '[["1"]]', '[["1,2"]]', '[["],["]]', '[["1]],[[2"]]', "[[null]]", "[[true]]", '{"a":[[1]]}', "null", '"[[1]]"',
    ],
)  # fmt: skip
@pytest.mark.parametrize("template", ["{},", "{},[[1.5]],", "[[1.5]],{},", "[[1.5],[2]],{},[[3]],"])
def test_other_json_returns_none(part: str, template: str) -> None:
    json.loads(part)  # control: it is JSON
    assert read_rings(template.format("[[2]]").encode()) is not None  # control: the template itself is accepted
    assert read_rings(template.format(part).encode()) is None
