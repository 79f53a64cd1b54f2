"""Ten times the capacity for a time: bounded memory, and an answer for each request; with its control.

The counts of the marker ``faults`` are those of the table in tests/README.md; the slow tests have a share of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from tests.serving.conftest import Start
from tests.serving.http_requests import Reply, get, memory_mib, post, request_bytes, send_at_rate

pytest.importorskip("fastapi", reason="the extra serve is not installed")

Tally = Callable[[str, int, int], None]
CAPACITY = 10.0
"""Images per second of the stub model with a delay of 0.1 seconds."""


def large_image() -> bytes:
    """A PNG of about half a megabyte, 420 x 420 pixels."""
    return bytes(cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (420, 420, 3), np.uint8))[1])


def overload(start: Start, seconds: float, queue_size: int) -> tuple[list[Reply], float]:
    """The replies to ten times the capacity, and by how many MiB the peak of the server's memory grew."""
    process, port = start(queue_size=queue_size, max_files=1, delay=1 / CAPACITY, batch_size=4, deadline=20)
    content = large_image()
    assert post(port, content)[0] == 200
    before = memory_mib(process)
    replies = asyncio.run(send_at_rate(port, request_bytes(content), 10 * CAPACITY, seconds))
    growth = memory_mib(process, "VmHWM") - before
    assert get(port, "/readyz") == 200
    return replies, growth


@pytest.mark.parametrize(
    "seconds", [pytest.param(10.0, marks=pytest.mark.slow), pytest.param(60.0, marks=pytest.mark.faults)]
)
def test_ten_times_the_capacity(start: Start, tally: Tally, seconds: float) -> None:
    replies, growth = overload(start, seconds, queue_size=8)
    answered = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 503]
    tally("V1 overload: answered or refused", len(answered) + len(refused), len(replies))
    assert all(json.loads(reply.content)["width"] == 420 for reply in answered)
    assert all(json.loads(reply.content) == {"error": "the queue is full; try again"} for reply in refused)
    # less than its capacity, because the machine may be busy otherwise
    assert len(answered) > 0.6 * CAPACITY * seconds
    assert len(refused) > len(answered), "control: it was too much"
    assert growth < 100, growth
    latency = [sorted(reply.seconds for reply in part)[len(part) // 2] for part in (refused, answered)]
    assert latency[0] < latency[1], "they are refused at once"


@pytest.mark.slow
def test_control_without_a_bound_the_memory_grows(start: Start) -> None:
    replies, growth = overload(start, 4, queue_size=10_000)
    assert growth > 100, growth
    assert 503 not in {reply.status for reply in replies}
