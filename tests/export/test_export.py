"""``detseg export``: equal to torch, or not written."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from detseg import Predictor
from detseg.checkpoints.checkpoint import load
from detseg.cli import main
from detseg.errors import DataError
from detseg.export import graph
from detseg.images import decode_image
from detseg.inference.agreement import Agreement, compare
from detseg.options import ExportConfig
from detseg.recipes.export import export
from detseg.runtime.reporter import Reporter, silent

ROOT = Path(__file__).resolve().parents[2]


def test_predictions_equal_those_of_torch_for_all_sizes(run: Path, exported: Path, parts: Path) -> None:
    original, again = Predictor(run, "cpu"), Predictor(exported)
    total = Agreement()
    for path, size in zip(sorted(parts.rglob("*.jpg")), [None, (150, 320), (333, 90), (50, 50)], strict=False):
        image = decode_image(path) if size is None else cv2.resize(decode_image(path), size)
        total += compare(original(image), again(image), path.name, original.backend.description)
    assert total.is_within_tolerance
    assert total.compared > 20
    assert total.boxes < 0.005


@pytest.mark.slow
def test_the_command_compares_and_says_so(
    run: Path,
    onnx_of_run: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("detseg.recipes.export.onnx_graph", lambda model: onnx_of_run)
    file = tmp_path / "new" / "parts.onnx"
    assert main(["export", str(run), "--output", str(file), "--images", "1"]) == 0
    printed = capsys.readouterr().out
    assert "compared with torch on 1 image: " in printed
    assert "largest differences: boxes " in printed
    assert f"wrote {file}" in printed
    events: list[Any] = []
    result = export(ExportConfig(str(run), str(file), images=1), reporter=Reporter(events.append))
    assert result.agreement is not None, "an earlier export is replaced"
    assert result.agreement.is_within_tolerance
    assert events
    assert capsys.readouterr().out == ""

    moved = tmp_path / "moved.safetensors"
    shutil.copy(run / "best.safetensors", moved)
    assert main(["export", str(moved), "--output", str(tmp_path / "moved.onnx")]) == 0
    printed = capsys.readouterr()
    assert "not compared with torch, without validation images" in printed.out + printed.err
    assert (tmp_path / "moved.onnx").is_file()


def brighter(model: Any) -> None:
    model.mean -= 0.1


def swapped_channels(model: Any) -> None:
    model.backbone.body.requires_grad_(False)
    first = next(module for module in model.backbone.modules() if isinstance(module, torch.nn.Conv2d))
    first.weight.copy_(first.weight.flip(1))


def shifted_boxes(model: Any) -> None:
    model.roi_heads.box_predictor.bbox_pred.bias += 0.02


SLOW = [pytest.param(change, marks=pytest.mark.slow) for change in (brighter, swapped_channels)]


@pytest.mark.parametrize("change", [shifted_boxes, *SLOW])
def test_control_a_file_that_differs_is_not_written(
    change: Any, run: Path, onnx_of_run: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(run)
    with torch.no_grad():
        change(model)
    monkeypatch.setattr("detseg.recipes.export.load", lambda run: model)
    monkeypatch.setattr("detseg.recipes.export.onnx_graph", lambda model: onnx_of_run)
    file = tmp_path / "parts.onnx"
    with pytest.raises(DataError, match=r"the exported file differs from the run, first in .*\.jpg"):
        export(ExportConfig(str(run), str(file)), reporter=silent())
    assert not file.exists()


@pytest.mark.slow
def test_the_commands_of_the_readme(
    run: Path, exported: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "tools" / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- export -->\n```bash\n(.*?)```", text, flags=re.DOTALL)
    shutil.copytree(run, tmp_path / "runs" / "cells")
    shutil.copytree(parts / "val", tmp_path / "IMAGES")
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        words = shlex.split(line)
        assert words[0] == "python"
        assert main([Path(words[1]).stem, *words[2:]]) == 0
    assert (tmp_path / "out-onnx" / "predictions.json").is_file()


def test_other_files_are_not_replaced(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(b"of another program")
    for output, message in (
        (other, "exists, and no earlier export wrote it; give another --output"),
        (tmp_path / "model.pt", "give one that ends with .onnx"),
        (tmp_path, "is no name of an ONNX file"),
    ):
        with pytest.raises(DataError, match=message):
            export(ExportConfig(str(run), str(output)), reporter=silent())
    assert other.read_bytes() == b"of another program"


def test_torch_still_has_the_exporter() -> None:
    """The exporter of this project (``dynamo=False``) is deprecated; on the day it is gone, this test says so."""
    pytest.importorskip("onnx", reason="export needs the package onnx")
    import io
    import warnings

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(torch.nn.Linear(2, 3), (torch.zeros(1, 2),), file, dynamo=False, opset_version=17)
        except Exception as error:
            pytest.fail(
                f"torch {torch.__version__} has no TorchScript-based ONNX exporter any more ({error}): detectors "
                "cannot be exported whole; pin torch, or export backbone, neck and heads with dynamo=True, and compute "
                "proposals and detections outside (detseg/export/graph.py)"
            )
    assert file.getvalue()


def test_without_the_packages_the_error_names_the_extra(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs the package onnx: pip install 'detseg\[export\]'"):
        graph.onnx_graph(load(run))


def test_without_the_exporter_the_error_names_the_version(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="export needs the package onnx")

    def gone(*args: Any, dynamo: bool = True, **options: Any) -> None:
        raise TypeError("export() got an unexpected keyword argument 'dynamo'")

    monkeypatch.setattr(torch.onnx, "export", gone)
    with pytest.raises(DataError, match=r"torch .* cannot export it .*'dynamo'.*; torch 2\.14 exports"):
        graph.onnx_graph(load(run))
