"""The server on a socket: overload, shutdown, slow and hostile clients."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serving.conftest import Start
from tests.serving.http_requests import (
    UNFINISHED,
    Answer,
    get,
    memory_mib,
    post,
    queue_length,
    received,
    slow_senders,
)

pytest.importorskip("fastapi", reason="the extra serve is not installed")

Png = Callable[..., bytes]


def many_posts(port: int, files: list[bytes]) -> list[Answer]:
    with ThreadPoolExecutor(len(files)) as pool:
        return list(pool.map(lambda file: post(port, file), files))


def overload(start: Start, png: Png, queue_size: int) -> tuple[list[Answer], float]:
    """The answers to ten times the queue of 8 at once, and by how many MiB the server grew."""
    process, port = start(queue_size=queue_size, max_files=1, delay=0.01, batch_size=4)
    widths = [10 + i for i in range(80)]
    post(port, png())
    before = memory_mib(process)
    answers = many_posts(port, [png(width, 20) for width in widths])
    for width, (status, headers, content) in zip(widths, answers, strict=True):
        assert status in (200, 503)
        if status == 200:
            assert json.loads(content)["width"] == width
        else:
            assert 1 <= int(headers["retry-after"]) <= 60
            assert json.loads(content) == {"error": "the queue is full; try again"}
    assert get(port, "/readyz") == 200
    return answers, memory_mib(process) - before


@pytest.mark.slow
def test_overload_is_refused_and_the_rest_is_answered(start: Start, png: Png) -> None:
    answers, growth = overload(start, png, queue_size=8)
    statuses = [status for status, _, _ in answers]
    assert statuses.count(200) >= 8
    assert statuses.count(503) >= 20
    assert growth < 100
    unbounded, _ = overload(start, png, queue_size=10_000)
    assert {status for status, _, _ in unbounded} == {200}, "control: without a bound, nothing is refused"


def stopped_under_load(start: Start, png: Png, number: signal.Signals) -> tuple[list[int], int]:
    """Statuses of 40 requests that were accepted before the signal, and the exit code."""
    process, port = start(delay=0.02, batch_size=4)
    post(port, png())
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(post(port, png())[0])) for _ in range(40)]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + 20
    while queue_length(port) + len(statuses) < 35 and time.monotonic() < ends:
        time.sleep(0.02)
    process.send_signal(number)
    for thread in threads:
        thread.join(30)
    return statuses, process.wait(30)


def test_a_signal_stops_the_server_after_its_answers(start: Start, png: Png) -> None:
    statuses, code = stopped_under_load(start, png, signal.SIGTERM)
    assert (statuses.count(200), code) == (40, 0)
    statuses, code = stopped_under_load(start, png, signal.SIGKILL)
    assert statuses.count(200) < 40, "control: killed, it loses requests"
    assert code == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_at_once_with_exit_code_0(start: Start, number: signal.Signals) -> None:
    process, port = start()
    idle = socket.create_connection(("127.0.0.1", port))
    assert get(port, "/livez") == 200
    process.send_signal(number)
    assert process.wait(10) == 0
    idle.close()
    assert process.stdout is not None
    assert process.stdout.read() == ""


def test_a_model_that_fails_at_once_ends_the_server(start: Start) -> None:
    process, _ = start(fail=True)
    assert process.wait(20) == 1
    assert process.stdout is not None
    text = process.stdout.read()
    assert "RuntimeError: no memory" in text
    assert "DataError: the server failed" in text


@pytest.mark.slow
def test_slow_senders_are_closed_and_do_not_slow_others(start: Start, png: Png) -> None:
    _, port = start(upload_seconds=1.0)
    post(port, png())
    sockets = [
        *slow_senders(port, 60, b""),
        *slow_senders(port, 60, b"POST /predict HTTP/1.1\r\nHost: x\r\nA: "),
        *slow_senders(port, 60, UNFINISHED),
    ]
    started = time.monotonic()
    assert [post(port, png())[0] for _ in range(20)] == [200] * 20
    assert time.monotonic() - started < 10
    answers = []
    for one in sockets:
        answers.append(received(one))
        one.close()
    assert answers[:120] == [b""] * 120, "heads: closed after five seconds"
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers[120:])
    assert time.monotonic() - started < 15
    assert get(port, "/livez") == 200


@pytest.mark.slow
@pytest.mark.parametrize("write_seconds", [1.0, 60.0])
def test_a_client_that_does_not_read_is_disconnected(start: Start, write_seconds: float) -> None:
    process, port = start(write_seconds=write_seconds)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(0.2)
        lost = False
        ends = time.monotonic() + 5
        while time.monotonic() < ends and not lost:
            try:
                one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            except TimeoutError:
                time.sleep(0.1)
            except ConnectionError:
                lost = True
    assert lost == (write_seconds < 5), "control: with a longer time it is still connected"
    assert get(port, "/livez") == 200
    assert process.poll() is None


@pytest.mark.slow
def test_a_refused_upload_gets_its_answer_before_all_is_sent(start: Start) -> None:
    _, port = start(max_megabytes=1, token="x")
    status, headers, content = post(port, bytes(8 * 2**20))
    assert (status, headers["connection"]) == (401, "close")
    _, port = start(max_megabytes=1)
    for size in (2 * 2**20, 50 * 2**20):
        status, headers, content = post(port, bytes(size))
        assert (status, json.loads(content)) == (413, {"error": "the request is larger than 1 MiB"})


@pytest.mark.slow
def test_too_many_connections_are_refused(start: Start) -> None:
    _, port = start(connections=3)
    idle = slow_senders(port, 3, b"")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
        assert b"503 Service Unavailable\r\nRetry-After: 1\r\n" in one.recv(1000)
    assert [post(port, bytes(8 * 2**20))[0] for _ in range(5)] == [503] * 5, "answers are not lost during an upload"
    for other in idle:
        other.close()
    time.sleep(0.1)
    assert get(port, "/livez") == 200, "control"


@pytest.mark.slow
def test_clients_that_leave_cost_no_predictions(start: Start, png: Png) -> None:
    _, port = start(delay=0.05, batch_size=1)
    content = png()
    request = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(content)
    ) + content
    post(port, content)
    for one in slow_senders(port, 40, request):
        one.close()
    started = time.monotonic()
    assert post(port, content)[0] == 200
    assert time.monotonic() - started < 1.0, "40 images would take two seconds"


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from detseg.cli import main

    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "detseg.serving.app", raising=False)
    assert main(["serve", "run"]) == 1
    assert capsys.readouterr().err == (
        "detseg serve: serve needs packages that are not installed (fastapi): pip install 'detseg[serve]'\n"
    )


def test_an_address_in_use_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    from detseg.cli import main

    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        assert main(["serve", str(tmp_path), "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(rf"127\.0\.0\.1 port {port} \([^()]+\); choose others with --host and --port", error)
