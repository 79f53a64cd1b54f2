"""Continuous integration runs what CONTRIBUTING promises."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

import detseg

ROOT = Path(__file__).resolve().parents[1]


def jobs() -> dict[str, Any]:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    return workflow["jobs"]  # type: ignore[no-any-return]


def test_the_workflow_runs_everything_on_linux_and_the_fast_tests_on_three_systems() -> None:
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs().items()}
    assert "bash .ci/run" in commands["full"]
    assert jobs()["full"]["runs-on"] == "ubuntu-latest"
    assert any("pytest" in command for command in commands["fast"])
    assert {name.partition("-")[0] for name in jobs()["fast"]["strategy"]["matrix"]["os"]} == {
        "ubuntu", "macos", "windows",
    }  # fmt: skip


def test_the_script_is_valid_and_runs_tests_style_types_wheel_and_main_job() -> None:
    script = ROOT / ".ci" / "run"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text(encoding="utf-8")
    for part in ("ruff check", "ruff format --check", "mypy", "-m slow", "pip wheel", "readme_block main-job"):
        assert part in text, part


def test_hooks_run_the_same_checks_as_continuous_integration() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    hooks = " ".join(hook["entry"] for hook in repository["hooks"])
    assert all(check in hooks for check in ("ruff check", "ruff format --check", "mypy"))


def test_the_version_is_stated_once_and_its_changes_are_listed() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", detseg.__version__)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = not detseg.__version__.partition(".dev")[1]
    assert f"## [{detseg.__version__ if released else 'Unreleased'}]" in changelog
    assert detseg.__version__ not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
