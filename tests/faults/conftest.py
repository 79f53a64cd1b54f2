"""Start short training runs in forked processes that a test may kill; torch is already imported there."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import detseg.training.run_results as results_module
from detseg.cli import main

OPTIONS = (
    *("--task", "classify", "--model", "mobilenet_v3_small", "--weights", "none", "--image-size", "40"),
    *("--epochs", "2", "--batch-size", "2", "--augment", "light", "--ema", "0.9", "--device", "cpu"),
    *("--optimizer", "adamw", "--val", "0.3", "--test", "0", "--patience", "9", "--keep-checkpoints", "2"),
)
DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_fpn_slim",
    "maskrcnn_mobilenet_v3_large_fpn_slim",
    "retinanet_mobilenet_v2_fpn_slim",
    "fcos_mobilenet_v2_fpn_slim",
    "ssdlite320_mobilenet_v3_large",
)
"""One detector of each kind."""
STEPS = 2 * 6  # 11 training images in batches of two, two epochs
FILES = ("last.safetensors", "best.safetensors", "metrics.json")


class Runs:
    """Starts and resumes runs on small images, and compares their output files."""

    def __init__(self, images: Path, uninterrupted: Path) -> None:
        self.images, self.uninterrupted = images, uninterrupted

    def start(self, output: Path, *options: str, before: Callable[[], None] | None = None) -> int:
        """Run ``before`` and ``train`` in a forked process; return its exit code, or minus the signal number."""
        return forked(["train", str(self.images), "--output", str(output), *OPTIONS, *options], before)

    def resume(self, run: Path, *options: str, before: Callable[[], None] | None = None) -> int:
        """Run ``train --resume`` in the same way; a run that was killed before it saved its options is restarted."""
        if not (run / "config.toml").exists():
            return self.start(run, *options, before=before)
        return forked(["train", "--resume", str(run), *options], before)

    def ends_equal(self, run: Path) -> bool:
        """Whether the files of a run are identical to those of the uninterrupted run."""
        return rows_of(run) == rows_of(self.uninterrupted) and all(
            (run / name).read_bytes() == (self.uninterrupted / name).read_bytes() for name in FILES
        )


def forked(arguments: list[str], before: Callable[[], None] | None = None) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    # Native objects with threads (encoders of videos) must not be freed in a process that does not have the threads.
    gc.collect()
    gc.freeze()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.dup2(devnull, 2)
            torch.set_num_threads(1)
            results_module.write_result_images = lambda *_: None  # type: ignore[assignment]
            results_module.plot_curves = lambda *_: True  # type: ignore[assignment]
            if before is not None:
                before()
            code = main(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    gc.unfreeze()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without the values that depend on time."""
    rows = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two classes of eight images, 11 for training and 5 for validation, and an uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for name, base in (("dark", 40), ("light", 200)):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(8):
            pixels = np.clip(rng.normal(base, 30, (48, 44, 3)), 0, 255).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / "images" / name / f"{index}.png")
    test_runs = Runs(folder / "images", folder / "uninterrupted")
    assert test_runs.start(test_runs.uninterrupted) == 0
    return test_runs


class Events:
    """Numbers the events in a process 1, 2, ..., and logs their names."""

    def __init__(self, log: Path | None) -> None:
        self.count, self.log = 0, log

    def number(self, name: str) -> int:
        """Count an event; return its number."""
        self.count += 1
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(name + "\n")
        return self.count


def kill_process() -> None:
    """Send SIGKILL to this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop_after_step(step: int) -> Callable[[], None]:
    """Send SIGTERM to the process after ``step`` updates."""

    def before() -> None:
        from detseg.checkpoints.manager import CheckpointManager

        is_due = CheckpointManager.is_due

        def signal_and_check(self: CheckpointManager, position: Any) -> bool:
            if position.step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return is_due(self, position)

        CheckpointManager.is_due = signal_and_check  # type: ignore[method-assign]

    return before
