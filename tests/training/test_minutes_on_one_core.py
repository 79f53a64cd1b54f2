"""``--minutes`` in a process of its own that has one core, or two: from the start of Python to its end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

MINUTES = 0.75
LATE = 20.0
"""Seconds that a short run may end after its minutes."""


def run_on(cores: int, data: Path, output: Path, minutes: float) -> tuple[subprocess.CompletedProcess[str], float]:
    """A run with ``minutes`` on the first ``cores`` of this process, and its seconds."""
    available = sorted(os.sched_getaffinity(0))
    options = ("--model", "maskrcnn_mobilenet_v3_large_fpn_slim", "--weights", "none", "--image-size", "96")
    options += ("--batch-size", "2", "--workers", "0", "--device", "cpu", "--output", str(output))
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "detseg", "train", str(data), "--minutes", str(minutes), *options],
        preexec_fn=lambda: os.sched_setaffinity(0, available[:cores]),
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done, time.monotonic() - start


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin a process to a core")
@pytest.mark.parametrize("cores", [1, 2])
def test_a_run_ends_within_its_minutes(cores: int, parts: Path, tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < cores:
        pytest.skip(f"this machine has fewer than {cores} cores")
    minutes, output = MINUTES, tmp_path / "run"
    done, seconds = run_on(cores, parts, output, minutes)
    least = re.search(r"this run needs at least ([\d.]+) minutes", done.stderr)
    if done.returncode == 1 and least:  # a slow or busy machine
        minutes = 1.5 * float(least[1])
        done, seconds = run_on(cores, parts, output, minutes)
    assert done.returncode == 0, done.stderr
    assert seconds <= 60 * minutes + max(LATE, 6 * minutes)
    epochs = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["seconds"] for row in epochs) > 0.2 * 60 * minutes  # control: the time is used
