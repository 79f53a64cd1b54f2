"""Shutdown with many requests in flight, with its control.

The count of the marker ``faults`` is that of the table in tests/README.md; the slow test has a share of it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

import pytest

from tests.serving.conftest import Start
from tests.serving.http_requests import (
    Reply,
    post,
    queue_length,
    request_bytes,
    send,
)

pytest.importorskip("fastapi", reason="the extra serve is not installed")

Png = Callable[..., bytes]
Tally = Callable[[str, int, int], None]


def drained(start: Start, png: Png, number: int, requests: int = 200) -> tuple[list[Reply], int]:
    """Replies to requests in flight when a signal comes, and the exit code."""
    process, port = start(delay=0.002, queue_size=1000, connections=1000)
    assert post(port, png())[0] == 200

    async def main() -> list[Reply]:
        tasks = [asyncio.create_task(send(port, request_bytes(png()))) for _ in range(requests)]
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            await asyncio.sleep(0.01)
            if await asyncio.to_thread(queue_length, port) + sum(task.done() for task in tasks) >= requests - 8:
                break
        process.send_signal(number)
        return list(await asyncio.gather(*tasks))

    return asyncio.run(main()), process.wait(30)


@pytest.mark.parametrize("times", [pytest.param(2, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.faults)])
def test_a_shutdown_answers_200_requests(start: Start, png: Png, tally: Tally, times: int) -> None:
    passed = 0
    for _ in range(times):
        replies, code = drained(start, png, signal.SIGTERM)
        passed += [reply.status for reply in replies] == [200] * 200 and code == 0
    tally("V2 shutdown with 200 requests in flight: all answered", passed, times)
    replies, code = drained(start, png, signal.SIGKILL)
    assert [reply.status for reply in replies].count(200) < 200, "control: killed, it loses requests"
