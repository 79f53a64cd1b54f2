"""Numbers straight from their text: those of Python's own reader, or no answer."""

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
    found = read_rings(text(values, spaced=spaced))
    assert found is not None
    assert (found.numbers / 100).tolist() == [number for value in values for ring in value for number in ring]
    assert found.lengths.tolist() == [len(ring) for value in values for ring in value]
    assert found.counts.tolist() == [len(value) for value in values]


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
        found = read_rings(text(values))
        assert found is not None
        assert (found.numbers / 100).tolist() == [number for value in values for ring in value for number in ring]


def test_whole_numbers() -> None:
    values: list[list[list[float]]] = [[[0, 7, 12345678], [99999999]], [[42]]]
    found = read_rings(text(values), whole=True)
    assert found is not None
    assert found.numbers.tolist() == [0, 7, 12345678, 99999999, 42]
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
@pytest.mark.parametrize("place", ["{},", "{},[[1.5]],", "[[1.5]],{},", "[[1.5],[2]],{},[[3]],"])
def test_anything_else_is_left_to_others(part: str, place: str) -> None:
    json.loads(part)  # control: it is JSON
    assert read_rings(place.format("[[2]]").encode()) is not None  # control: the place is not what is refused
    assert read_rings(place.format(part).encode()) is None
