"""A real model: the server's answers are the predictions of ``Predictor``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from detseg import Predictor, create_model
from detseg.checkpoints import save_checkpoint
from detseg.classes import ClassMap
from detseg.images import read_header
from detseg.serving import Client
from detseg.serving.reply import Masks, ReplyOptions, describe, from_reply, to_reply
from tests.serving.conftest import started


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.manual_seed(0)
    classes = ClassMap(("bolt", "nut", "washer"))
    model = create_model("maskrcnn_mobilenet_v3_large_fpn_slim", classes, weights="none", image_size=96).model
    path = tmp_path_factory.mktemp("served") / "model.safetensors"
    save_checkpoint(path, model)
    return path


def assert_same(answer: dict[str, Any], prediction: Any, model: dict[str, Any]) -> None:
    again = from_reply(answer, model)
    assert len(again) == len(prediction) > 0  # type: ignore[arg-type]
    np.testing.assert_allclose(again.boxes, prediction.boxes, atol=0.006)  # type: ignore[union-attr]
    np.testing.assert_allclose(again.scores, prediction.scores, atol=1e-4)  # type: ignore[union-attr]
    np.testing.assert_array_equal(again.labels, prediction.labels)  # type: ignore[union-attr,operator]
    assert again.rles == prediction.rles  # type: ignore[union-attr]


def test_answers_are_predictions(checkpoint: Path, parts: Path) -> None:
    predictor = Predictor(checkpoint, "cpu")
    image = next((parts / "train").glob("*.jpg"))
    prediction = predictor(image.read_bytes())
    size_hw = read_header(image).size_hw
    assert_same(to_reply(prediction, size_hw, predictor), prediction, describe(predictor))
    masks: Masks
    for masks in ("polygon", "none"):
        assert to_reply(prediction, size_hw, predictor, ReplyOptions(masks))["objects"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="waits for a pipe and sends signals as POSIX does")
def test_the_command_serves_a_model_until_a_signal(
    checkpoint: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], png: Callable[..., bytes]
) -> None:
    from detseg.cli import main

    command = [sys.executable, "-m", "detseg", "serve", str(checkpoint), "--port", "0", "--device", "cpu"]
    process, port = started(command, {"DETSEG_TOKEN": "sesame"})
    try:
        client = Client(f"http://127.0.0.1:{port}", token="sesame")
        predictor, model = Predictor(checkpoint, "cpu"), client.model()
        images = sorted((parts / "train").glob("*.jpg"))
        for image, answer in zip(images, client.predict_many(images), strict=True):
            assert_same(answer, predictor(image), model)
            assert_same(client.predict(image), predictor(image), model)
        url = f"http://127.0.0.1:{port}"
        assert main(["client", url, str(images[0])]) == 1, "without the token"
        assert "a token is needed" in capsys.readouterr().err
        output = tmp_path / "out"
        assert main(["client", url, str(images[0]), "--token", "sesame", "--output", str(output)]) == 0
        assert len(list(output.rglob("*.jpg"))) == 1
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
