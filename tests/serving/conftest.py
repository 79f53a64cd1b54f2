"""Fixtures of the tests of the server: a model that predicts from the size of an image, and servers of it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).with_name("stub_server.py")
Start = Callable[..., tuple[subprocess.Popen[str], int]]


@pytest.fixture(scope="session")
def png() -> Callable[[int, int], bytes]:
    """``png(width, height)``: an image file."""

    def encoded(width: int = 60, height: int = 40) -> bytes:
        return bytes(cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1])

    return encoded


def started(command: list[str], environment: dict[str, str] | None = None, seconds: float = 120) -> tuple[
    subprocess.Popen[str], int
]:  # fmt: skip
    """A process that prints the address of its server, and the port of it."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})},
    )
    assert process.stdout is not None
    lines, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends and process.poll() is None:
        if select.select([process.stdout], [], [], 0.2)[0]:
            lines.append(process.stdout.readline())
            if "127.0.0.1:" in lines[-1]:
                return process, int(lines[-1].split("127.0.0.1:")[1].split()[0].rstrip("/;"))
    process.kill()
    raise AssertionError(f"the server did not start: {lines}")


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(**options)``: a new process that serves the stub model; it is ended after the test."""
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    if sys.platform == "win32":
        pytest.skip("waits for a pipe and sends signals as POSIX does")
    processes: list[subprocess.Popen[str]] = []

    def run(**options: object) -> tuple[subprocess.Popen[str], int]:
        process, port = started([sys.executable, str(STUB), repr(options)])
        processes.append(process)
        return process, port

    yield run
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(10)
