"""Without a terminal no phase is silent for more than 30 seconds; on a terminal there is one bar for the whole run."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from detseg.cli import main
from detseg.runtime import reporter, run_progress
from detseg.runtime.reporter import ProgressBar, Reporter, TerminalSink, progress
from detseg.runtime.run_progress import RunProgress
from detseg.training.time_limit import TimeLimit

FORWARD_SECONDS = 7.0
"""What a forward pass of a network takes on the clock of these tests."""


class Clock:
    """A clock that only moves when it is told to, and the text that was printed at its times."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.printed: list[tuple[float, str]] = []

    def __call__(self) -> float:
        return self.now

    def longest_silence(self, start: float) -> float:
        times = [start, *(time for time, _ in self.printed if time >= start), self.now]
        return max(later - time for time, later in pairwise(times))


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The first convolution of a network, which every forward pass of it has, moves the clock."""
    clock = Clock()
    for module in (reporter, run_progress):
        monkeypatch.setattr(module, "monotonic", clock)

    def remember(text: str, **_: Any) -> None:
        clock.printed.append((clock.now, text))

    monkeypatch.setattr(reporter, "print", remember, raising=False)

    def slow(module: torch.nn.Module, _: Any) -> None:
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3:
            clock.now += FORWARD_SECONDS

    with register_module_forward_pre_hook(slow):
        yield clock


def run_phase(phase: str, classify: Any, images: Path, folder: Path) -> None:
    if phase == "training, evaluation and test":
        classify(folder, "--batch-size", "1", "--test", "0.3", "--freeze", "none")
    elif phase == "measuring":
        with pytest.MonkeyPatch.context() as patch:  # the clock of the test does not move the minutes
            patch.setattr(TimeLimit, "epochs_that_fit", lambda *_: 1)
            classify(folder, "--epochs", "null", "--minutes", "0.001", "--freeze", "none", "--batch-size", "2")
    elif phase == "features":
        classify(folder, "--freeze", "backbone", "--cache", "memory", "--augment", "flip", "--epochs", "1")
    elif phase == "readers":
        for _ in progress(range(20), "reading"):
            reporter.monotonic.now += FORWARD_SECONDS  # type: ignore[attr-defined]
    elif phase == "evaluate":
        assert (
            main(["evaluate", str(folder), "--split", "train", "--batch-size", "1", "--loss", "--device", "cpu"]) == 0
        )
    else:
        arguments = ["predict", str(folder), str(images), "--output", str(folder / "out"), "--device", "cpu"]
        assert main(arguments) == 0


PHASES = ("training, evaluation and test", "measuring", "features", "readers", "evaluate", "predict")
LINES = {
    "training, evaluation and test": ("epoch 1/2, batch ", "evaluate, batch ", "validation loss, batch "),
    "measuring": ("measuring the speed, ",),
    "features": ("caching features, image ",),
    "readers": ("reading, item ",),
    "evaluate": ("evaluate, batch ",),
    "predict": ("predict, image ",),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_line_at_least_every_30_seconds_in_every_phase(
    phase: str, clock: Clock, classify: Any, colour_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if phase in ("evaluate", "predict"):
        classify(tmp_path / "run", "--epochs", "1")
    start = clock.now
    run_phase(phase, classify, colour_folders, tmp_path / "run")
    assert clock.now - start > 90, "the phase is long"
    assert clock.longest_silence(start) <= 30
    lines = [text for time, text in clock.printed if time >= start]
    for text in LINES[phase]:
        assert any(line.startswith(text) and line.endswith(" left") for line in lines), (text, lines)
    if phase in ("readers", "predict"):  # control
        monkeypatch.setattr(ProgressBar, "_send", lambda self, text: None)
        start = clock.now
        run_phase(phase, classify, colour_folders, tmp_path / "run")
        assert clock.longest_silence(start) > 30


def test_control_a_phase_without_progress_is_silent(
    clock: Clock, classify: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProgressBar, "_send", lambda self, text: None)
    start = clock.now
    classify(tmp_path / "run", "--batch-size", "1", "--test", "0.3", "--freeze", "none", "--epochs", "1")
    assert clock.longest_silence(start) > 30


def test_the_time_left_is_that_of_the_whole_run(clock: Clock) -> None:
    """Parts have their own speed; a part that is not measured yet makes it a lower bound."""
    run = RunProgress()
    assert run.state() == {"share": 0.0, "seconds_left": None, "bound": "at least"}
    run.expect({"training": 10, "evaluate": 4})
    run.begin("training", 5)
    for _ in range(5):
        clock.now += 10
        run.advance("training", 1)
    assert run.state()["seconds_left"] == 50
    assert run.state()["bound"] == "at least"
    run.end("training", 0)
    run.begin("evaluate", 2)
    clock.now += 4
    run.advance("evaluate", 2)
    assert run.state() == {"share": pytest.approx(54 / 108), "seconds_left": 54, "bound": ""}
    run.begin("training", 5)
    run.advance("training", 5)
    run.begin("evaluate", 2)
    run.end("evaluate", 2)  # not needed
    assert run.state()["share"] == 1
    assert RunProgress(may_stop_early=True).state()["bound"] == "about"


def test_one_bar_for_the_whole_run_on_a_terminal(
    classify: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, bars = Screen(), []
    create = reporter.tqdm

    class Bar(create):  # type: ignore[misc,valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"mininterval": 0})
            bars.append(self)

    monkeypatch.setattr(reporter, "tqdm", Bar)
    monkeypatch.setattr(sys, "stderr", screen)
    classify(tmp_path / "run")
    *readers, bar = bars  # sizes and content of the images, before the run
    assert [bar.total for bar in readers] == [18, 2]
    assert bar.total == 1.0
    shown = screen.getvalue()
    for text in ("epoch 1/2, batch 1/", "epoch 2/2, batch 1/", "evaluate, batch ", "images/s, ", "at least ", " left"):
        assert text in shown
    assert screen.getvalue().endswith("\r"), "removed at the end"


def test_the_bar_of_a_run_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Screen())
    sink = TerminalSink()
    there = Reporter(sink)
    with pytest.raises(ZeroDivisionError), there.whole_run(), there.bar("epoch 1/2", total=3):
        raise ZeroDivisionError
    assert not sink._bars
    assert there.run is None
