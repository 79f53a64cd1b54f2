"""The client: answers, errors in one line, repeated requests, drawings."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from detseg.cli import main
from detseg.errors import DataError
from detseg.serving import Client, ServerError
from detseg.serving.reply import describe, to_reply
from tests.serving.stub_server import StubModel, prediction

Png = Callable[..., bytes]


class Handler(BaseHTTPRequestHandler):
    """Answers with ``answers`` in turn, and stores what it receives."""

    answers: ClassVar[list[tuple[int, Any]]] = []
    received: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received.append((self.path, dict(self.headers), content))
        status, value = self.answers.pop(0) if self.answers else (200, REPLY)
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.answers.insert(0, (200, describe(StubModel())))
        self.do_POST()

    def log_message(self, *args: object) -> None:
        pass


REPLY = to_reply(prediction(40, 60), (40, 60), StubModel())


@contextmanager
def server(*answers: tuple[int, Any]) -> Iterator[str]:
    Handler.answers[:], Handler.received[:] = answers, []
    with HTTPServer(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()
        thread.join()


def test_an_image_is_sent_as_it_is(png: Png, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with server() as url:
        client = Client(url + "/", token="sesame")
        assert client.predict(tmp_path / "a.png", masks="none", top=3) == client.predict(png()) == REPLY
        assert client.model()["classes"] == ["bolt", "nut"]
    (path, headers, content), (second, _, _), _ = Handler.received
    assert (path, second, content) == ("/predict?masks=none&top=3", "/predict", png())
    assert headers["Authorization"] == "Bearer sesame"


def test_several_images(png: Png) -> None:
    with server((200, [REPLY, REPLY]), (200, REPLY)) as url:
        assert Client(url).predict_many([png(), png()]) == [REPLY, REPLY]
        assert Client(url).predict_many([png()]) == [REPLY]
        assert Client(url).predict_many([]) == []
    (_, headers, content), _ = Handler.received
    boundary = headers["Content-Type"].partition("boundary=")[2].encode()
    assert content.count(b"--" + boundary) == 3
    assert content.count(png()) == 2


def test_a_busy_server_is_asked_again(png: Png) -> None:
    busy = (503, {"error": "the queue is full; try again"})
    with server(busy, busy) as url:
        assert Client(url).predict(png()) == REPLY
        assert len(Handler.received) == 3
    with server(busy, busy) as url, pytest.raises(ServerError, match="the queue is full") as caught:
        Client(url, attempts=2).predict(png())
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((415, {"error": "file 1 is not a readable image"}), "file 1 is not a readable image"),
        ((404, b"<html>"), "404 Not Found"),
        ((200, b"<html>"), "the answer is not JSON; is the address right?"),
        ((200, [1]), "not the one of a detseg server"),
    ],
)
def test_errors(answer: tuple[int, Any], message: str, png: Png) -> None:
    with server(answer) as url, pytest.raises(ServerError, match=message):
        Client(url).predict(png())
    assert len(Handler.received) == 1, "not repeated"


def test_no_server_and_no_address() -> None:
    with pytest.raises(ServerError, match=r"no answer .*does the server run"):
        Client("http://127.0.0.1:9").model()
    for url in ("localhost:8000", "file:///etc/passwd", "127.0.0.1"):
        with pytest.raises(DataError, match="is not the address of a server"):
            Client(url)


@pytest.fixture
def photos(png: Png, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.png").write_bytes(png())
    return folder


def test_the_command_prints_a_line_per_image(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with server() as url:
        assert main(["client", url, str(photos), "--min-score", "0.3"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"file": "a.png", **REPLY}
    assert second["file"] == "b.png"
    assert Handler.received[1][0] == "/predict?masks=rle&min_score=0.3&top=5"


def test_the_command_draws_also_a_second_time(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for _ in range(2):
        with server() as url:
            assert main(["client", url, str(photos), "--output", str(output), "--masks", "none"]) == 0
    drawings = sorted(path for path in output.rglob("*") if path.is_file())
    assert [path.name for path in drawings] == ["a.png.jpg", "b.png.jpg"]
    drawn = cv2.imread(str(drawings[0]))
    assert drawn is not None
    assert drawn.shape == (40, 60, 3)
    assert np.ptp(drawn) > 50, "the image itself is black"


def test_an_image_that_fails_costs_that_image_only(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with server((400, {"error": "file 1 cannot be decoded"})) as url:
        assert main(["client", url, str(photos)]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["file"] == "b.png"
    assert "a.png: " in printed.err
    assert "file 1 cannot be decoded" in printed.err
    assert main(["client", "http://127.0.0.1:9", str(photos)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("detseg client: http://127.0.0.1:9: no answer")
    assert error.count("\n") == 1
