"""A suggested command has the form in which the user called the program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from detseg.runtime.user_command import SCRIPTS, user_command

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("called", "command", "expected"),
    [
        ("/usr/bin/detseg", "predict", "detseg predict runs/a IMAGES"),
        (str(ROOT / "detseg" / "__main__.py"), "predict", "python -m detseg predict runs/a IMAGES"),
        ("tools/train.py", "predict", "python tools/predict.py runs/a IMAGES"),
        ("tools/train.py", "inspect", "python tools/inspect_data.py runs/a IMAGES"),
        ("tools/benchmark.py", "pretrain", "python -m detseg pretrain runs/a IMAGES"),
        ("/lib/ipykernel_launcher.py", "train", "detseg train runs/a IMAGES"),
        ("", "train", "detseg train runs/a IMAGES"),
    ],
)
def test_the_form_of_a_command(called: str, command: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [called])
    assert user_command(command, Path("runs/a"), "IMAGES") == expected


def test_a_script_of_the_user_is_not_one_of_this_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train.py", "predict.py"):
        (tmp_path / name).write_text("import detseg\n")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "train.py")])
    assert user_command("predict", "run of mine") == "detseg predict 'run of mine'"


def test_every_script_is_there() -> None:
    assert sorted(SCRIPTS.values()) == sorted(path.name for path in (ROOT / "tools").glob("*.py"))


def test_messages_name_no_fixed_form() -> None:
    """Every suggestion goes through ``user_command``."""
    for path in (ROOT / "detseg").rglob("*.py"):
        if path.name not in ("user_command.py", "pretrain.py", "__main__.py") and "benchmarks" not in path.parts:
            text = path.read_text(encoding="utf-8")
            assert "python tools/" not in text, path
            assert "with tools/" not in text, path
