"""Formatting of aligned tables for the terminal."""

from __future__ import annotations

import pytest

from detseg.reports.table import align


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], ["name  AP", "----  --"]),
        ([["bolt", "0.5"]], ["name   AP", "----  ---", "bolt  0.5"]),
        ([["a", "0.25"], ["漢字 x", ""]], ["name      AP", "------  ----", "a       0.25", "漢字 x"]),
        ([["a", "x"], ["b", "1"]], ["name  AP", "----  --", "a     x", "b     1"]),
        ([["e\u0301", "12 %"]], ["name    AP", "----  ----", "e\u0301     12 %"]),
    ],
)
def test_align(rows: list[list[str]], lines: list[str]) -> None:
    assert align(rows, ["name", "AP"]) == lines


def test_rows_must_have_the_length_of_the_header() -> None:
    with pytest.raises(ValueError, match="row of 1 cells"):
        align([["a"]], ["name", "AP"])
