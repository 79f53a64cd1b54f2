"""``detseg selfcheck``: the stages agree, and what makes one differ is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.checkpoints.checkpoint import load
from detseg.cli import main
from detseg.errors import DataError
from detseg.export.exported_file import ExportedModel, exported_content
from detseg.inference.predictor import Predictor
from detseg.options import SelfcheckConfig
from detseg.recipes.selfcheck import selfcheck
from detseg.runtime.reporter import silent


def test_all_stages_agree(run: Path, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", str(run), str(exported)]) == 0
    printed = capsys.readouterr().out
    assert "predict and evaluate: " in printed
    assert "export and evaluate: " in printed
    assert "passed on 2 images" in printed


@pytest.mark.slow
def test_without_a_file_it_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", str(run), "--images", "1"]) == 0
    assert f"passed on 1 image; no exported file was checked (detseg export {run})" in capsys.readouterr().out


def wrong_mean(graph: bytes, model: ExportedModel, patch: pytest.MonkeyPatch) -> bytes:
    """``predict`` uses another mean than ``evaluate``."""

    def load_darker(run: Path) -> Any:
        network: Any = load(run)
        network.mean += 0.05
        return network

    patch.setattr("detseg.inference.torch_backend.load", load_darker)
    return exported_content(graph, model)


def bgr(graph: bytes, model: ExportedModel, patch: pytest.MonkeyPatch) -> bytes:
    """``Predictor`` swaps red and blue."""
    load = Predictor.load

    def swapped(predictor: Predictor, image: Any) -> Any:
        loaded = load(predictor, image)
        return replace(loaded, pixels=np.ascontiguousarray(loaded.pixels[..., ::-1]))

    patch.setattr(Predictor, "load", swapped)
    return exported_content(graph, model)


def other_weights(graph: bytes, model: ExportedModel, patch: pytest.MonkeyPatch) -> bytes:
    """The file has the graph of another run, and the checksum of this one."""
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    changed = onnx.load_from_string(graph)
    (bias,) = (item for item in changed.graph.initializer if item.name.endswith("box_predictor.bbox_pred.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.05), bias.name))
    return exported_content(changed.SerializeToString(), model)


def resize_off_by_one(graph: bytes, model: ExportedModel, patch: pytest.MonkeyPatch) -> bytes:
    larger = replace(model.preprocessing, min_size=model.preprocessing.min_size + 1)
    return exported_content(graph, replace(model, preprocessing=larger))


CONTROLS = [(wrong_mean, "predict"), (bgr, "predict"), (resize_off_by_one, "export")]


@pytest.mark.parametrize(
    ("change", "stage"),
    [(other_weights, "export"), *(pytest.param(*control, marks=pytest.mark.slow) for control in CONTROLS)],
)
def test_control_what_differs_is_named(
    change: Callable[..., bytes],
    stage: str,
    run: Path,
    exported: Path,
    onnx_of_run: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    description = Predictor(exported).backend.description
    assert isinstance(description, ExportedModel)
    file = tmp_path / "changed.onnx"
    file.write_bytes(change(onnx_of_run, description, monkeypatch))
    with pytest.raises(DataError, match=rf"stage {stage} differs from evaluate, first in bench_.*\.jpg"):
        selfcheck(SelfcheckConfig(str(run), str(file)), reporter=silent())


@pytest.mark.slow
def test_control_the_export_of_another_run_is_refused(
    run: Path, exported: Path, onnx_of_run: bytes, tmp_path: Path
) -> None:
    description = Predictor(exported).backend.description
    assert isinstance(description, ExportedModel)
    file = tmp_path / "other.onnx"
    file.write_bytes(exported_content(onnx_of_run, replace(description, checkpoint="0" * 64)))
    with pytest.raises(DataError, match=r"other\.onnx was not exported from .*best\.safetensors"):
        selfcheck(SelfcheckConfig(str(run), str(file)), reporter=silent())
