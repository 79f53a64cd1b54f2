"""Ten times the capacity for a time, and many slow clients: bounded memory, and an answer for each request; controls.

The counts of the marker ``faults`` are those of the table in tests/README.md; the slow tests have a share of them.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from tests.serving.conftest import Start
from tests.serving.http_requests import Reply, get, memory_mib, post, request_bytes, send_at_rate, slow_senders

pytest.importorskip("fastapi", reason="the extra serve is not installed")

Png = Callable[..., bytes]
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


class _OneByOne(http.server.BaseHTTPRequestHandler):
    """The standard library's server, which waits for a slow client."""

    timeout = 3

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def slowest(port: int, content: bytes, number: int = 40) -> float:
    """Seconds of the slowest of some requests, one after the other."""
    seconds = []
    for _ in range(number):
        started = time.monotonic()
        assert post(port, content)[0] == 200
        seconds.append(time.monotonic() - started)
    return max(seconds)


@pytest.mark.faults
def test_500_slow_clients_do_not_slow_others(start: Start, png: Png, tally: Tally) -> None:
    _, port = start(delay=0.05)
    content = png()
    post(port, content)
    alone = slowest(port, content)
    heads = (b"", b"POST /predict HTTP/1.1\r\nHost: x\r\nA: ")
    sockets = [one for head in heads for one in slow_senders(port, 250, head)]
    tally("V4 500 slow clients: others at most twice as slow", int(slowest(port, content) < 2 * alone), 1)
    for one in sockets:
        one.close()
    with http.server.HTTPServer(("127.0.0.1", 0), _OneByOne) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        slow = slow_senders(port, 1, heads[1])
        assert slowest(port, content, 1) > 1, "control: the standard library's server waits for one slow client"
        slow[0].close()
        server.shutdown()
