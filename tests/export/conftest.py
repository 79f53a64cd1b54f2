"""A small trained run and its exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detseg.cli import main


@pytest.fixture(scope="session")
def run(parts: Path, train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mask R-CNN of bundled weights, which finds parts of the demo set with different scores."""
    with pytest.MonkeyPatch.context() as patch:
        import detseg.training.run_results as results_module

        patch.setattr(results_module, "plot_curves", lambda rows, path: True)
        patch.setattr(results_module, "write_result_images", lambda *args: None)
        return train(parts, tmp_path_factory.mktemp("export") / "run", "--weights", "bundled", "--image-size", "128")


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="export needs the package onnx")
    pytest.importorskip("onnxruntime", reason="exported files need the package onnxruntime")
    file = tmp_path_factory.mktemp("exported") / "parts.onnx"
    assert main(["export", str(run), "--output", str(file)]) == 0
    return file


@pytest.fixture(scope="session")
def onnx_of_run(exported: Path) -> bytes:
    """The ONNX model of ``exported`` without the metadata and the checksum."""
    content = exported.read_bytes()
    return content[: content.rindex(b"\x72", 0, content.rindex(b"\x0a\x06detseg\x12"))]
