"""``detseg selfcheck RUN URL``: a server gives the same results, and what makes it differ is found."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.checkpoints.checkpoint import load
from detseg.errors import DataError
from detseg.inference.predictor import Predictor
from detseg.options import SelfcheckConfig, ServeConfig
from detseg.recipes.selfcheck import selfcheck
from detseg.runtime.reporter import silent

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

URL = "http://test"


def serve(predictor: Predictor, patch: pytest.MonkeyPatch) -> None:
    """Let ``selfcheck`` ask an application of ``predictor`` in this process."""
    from starlette.testclient import TestClient

    from detseg.serving.app import create_app

    class InProcess:
        def __init__(self, url: str, *, token: str | None = None) -> None:
            pass

        def model(self) -> Any:
            return self._send("get", "/model")

        def predict(self, path: Path, **options: Any) -> Any:
            image = {"content": path.read_bytes(), "headers": {"Content-Type": "image/jpeg"}}
            return self._send("post", "/predict", params=options, **image)

        def _send(self, method: str, path: str, **arguments: Any) -> Any:
            with TestClient(create_app(predictor, ServeConfig())) as client:
                answer = getattr(client, method)(path, **arguments)
                assert answer.status_code == 200, answer.text
                return answer.json()

    patch.setattr("detseg.recipes.selfcheck.Client", InProcess)


def the_same(run: Path) -> Predictor:
    return Predictor(run, "cpu")


def wrong_mean(run: Path) -> Predictor:
    network: Any = load(run)
    network.mean += 0.05
    return Predictor(network, "cpu")


def bgr(run: Path) -> Predictor:
    predictor = Predictor(run, "cpu")
    load = predictor.load

    def swapped(image: Any) -> Any:
        loaded = load(image)
        return replace(loaded, pixels=np.ascontiguousarray(loaded.pixels[..., ::-1]))

    predictor.load = swapped  # type: ignore[method-assign]
    return predictor


def resize_off_by_one(run: Path) -> Predictor:
    predictor = Predictor(run, "cpu")
    predictor.preprocessing = replace(predictor.preprocessing, min_size=predictor.preprocessing.min_size + 1)
    return predictor


def other_weights(run: Path) -> Predictor:
    network: Any = load(run)
    network.roi_heads.box_predictor.bbox_pred.bias.data += 0.05
    return Predictor(network, "cpu")


@pytest.mark.parametrize(
    ("model", "is_equal"),
    [
        (the_same, True),
        (bgr, False),
        *(
            pytest.param(change, False, marks=pytest.mark.slow)
            for change in (wrong_mean, resize_off_by_one, other_weights)
        ),
    ],
)
def test_a_server_is_compared(
    model: Callable[[Path], Predictor], is_equal: bool, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(model(run), monkeypatch)
    config = SelfcheckConfig(str(run), url=URL)
    if is_equal:
        result = selfcheck(config, reporter=silent())
        assert result.stages["serve"].compared > 0
    else:
        with pytest.raises(DataError, match=r"stage serve differs from evaluate, first in bench_.*\.jpg"):
            selfcheck(config, reporter=silent())


def test_a_server_of_other_classes_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.serving.stub_server import StubModel

    serve(StubModel(), monkeypatch)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="http://test serves another model than"):
        selfcheck(SelfcheckConfig(str(run), URL), reporter=silent())


@pytest.mark.slow
def test_the_command_with_a_file_and_a_server(run: Path, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from detseg.cli import main
    from tests.serving.conftest import started

    process, port = started([sys.executable, "-m", "detseg", "serve", str(exported), "--port", "0"])
    try:
        assert main(["selfcheck", str(run), str(exported), f"http://127.0.0.1:{port}"]) == 0
    finally:
        process.send_signal(signal.SIGTERM)
    printed = capsys.readouterr().out
    assert "serve and evaluate: " in printed
    assert process.wait(60) == 0
