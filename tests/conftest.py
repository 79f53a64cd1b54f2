"""Fixtures for all tests."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker per core: more threads would only wait for each other

SHARED_DATA = Path(os.environ.get("DETSEG_SHARED_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))

SMALL = (
    *("--model", "maskrcnn_mobilenet_v3_large_fpn_slim", "--weights", "none", "--image-size", "96"),
    *("--epochs", "1", "--batch-size", "2", "--workers", "0", "--device", "cpu"),
    *("--rois-per-image", "32", "--detections-per-image", "20"),
)
"""Options of a run that takes seconds; later options override these."""

Train = Callable[..., Path]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it are skipped if it does not exist."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not present at {SHARED_DATA}; set DETSEG_SHARED_DATA to its folder")
    return SHARED_DATA.resolve()


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str, int, int], None]:
    """``tally(name, passed, total)``: add a line to the summary at the end of the test session. All must pass."""

    def count(name: str, passed: int, total: int) -> None:
        record_property("tally", (name, passed, total))
        assert passed == total

    return count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many fault tests of each kind passed, and their total number (see ``tally``)."""
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                if name == "tally":
                    totals[value[0]][0] += value[1]
                    totals[value[0]][1] += value[2]
    if totals:
        terminalreporter.section("faults")
        for name in sorted(totals):
            terminalreporter.write_line(f"{name:60} {totals[name][0]:4} of {totals[name][1]:4}")


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo set with six images: four for training, two for validation, three classes, instance masks."""
    from detseg.synthetic.demo.render import render

    folder = tmp_path_factory.mktemp("parts") / "data"
    render(folder, train=4, val=2)
    return folder


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """The options that the ``train`` fixture adds, for tests that call the command directly."""
    return SMALL


@pytest.fixture(scope="session")
def train() -> Train:
    """``train(data, output, *options)`` runs the command, which must succeed, and returns the run folder."""

    from detseg.cli import main

    def run(data: Path, output: Path, *options: str) -> Path:
        assert main(["train", str(data), "--output", str(output), *SMALL, *options]) == 0
        return output

    return run


@pytest.fixture(scope="session")
def rows() -> Callable[[Path], list[dict[str, Any]]]:
    """``rows(run)`` reads metrics.jsonl without the values that depend on time."""

    def read(run: Path) -> list[dict[str, Any]]:
        values = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in values]

    return read


@pytest.fixture(scope="module")
def no_images() -> Iterator[None]:
    """Disable plots and result images, which take longer than a tiny run; other tests cover them."""
    import detseg.training.run_results as results_module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_module, "plot_curves", lambda rows, path: True)
        patch.setattr(results_module, "write_result_images", lambda *args: None)
        yield
