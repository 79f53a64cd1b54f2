"""Every case of the table, through every command: kind x format x command."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.real_exports.case import DOORS, Case, check

CASES: list[Case] = [
    case
    for file in sorted(Path(__file__).parent.glob("cases_*.py"))
    for case in importlib.import_module(f"tests.real_exports.{file.stem}").CASES
]
CELLS = [(case, door) for case in CASES for door in DOORS if door not in case.without]


@pytest.mark.parametrize(("case", "door"), CELLS, ids=[f"{case.name}-{door}" for case, door in CELLS])
def test_cell(case: Case, door: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(case, door, tmp_path, capsys)


def test_names_and_reasons() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert all(len(reason) > 10 for case in CASES for reason in case.without.values())
