"""The exported file: it describes itself, any change of a byte is an error, and it runs without torch."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from detseg import Predictor
from detseg.checkpoints.checkpoint import load
from detseg.cli import main
from detseg.errors import DataError
from detseg.export.exported_file import FORMAT, ExportedModel, exported_content, read_exported
from detseg.inference.results import to_results
from detseg.structures import Prediction
from detseg.version import __version__

MINIMAL = ("torch", "torchvision", "safetensors", "albumentations", "hotcoco", "tqdm", "yaml", "defusedxml", "timm")
"""Packages that ``Predictor`` does not need for an exported file."""

WITHOUT = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
PREDICT = """
import json
from detseg import Predictor
from detseg.inference.results import to_results
predictor = Predictor(sys.argv[1])
print(json.dumps(to_results(predictor(sys.argv[2]), predictor.class_map)))
"""
COMMAND = "from detseg.cli import main\nsys.exit(main(sys.argv[1:]))\n"


def without(absent: tuple[str, ...], code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a Python where these packages cannot be imported."""
    source = WITHOUT.format(absent=absent) + code
    return subprocess.run([sys.executable, "-c", source, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def image(parts: Path) -> Path:
    return sorted((parts / "val").glob("*.jpg"))[0]


def test_it_describes_itself(run: Path, exported: Path) -> None:
    predictor, model = Predictor(exported), load(run).description
    for name in ("class_map", "label_fields", "task", "keypoints", "preprocessing"):
        assert getattr(predictor, name) == getattr(model, name)
    description = predictor.backend.description
    assert isinstance(description, ExportedModel)
    assert description.checkpoint == hashlib.sha256((run / "best.safetensors").read_bytes()).hexdigest()
    assert description.weights_licence.startswith("Apache-2.0"), "the bundled weights"
    assert (description.version, description.format) == (__version__, FORMAT)
    assert description.score_threshold == model.score_threshold
    assert predictor.device == "cpu"
    assert str(Path("detseg").resolve()).encode() not in exported.read_bytes(), "no path of this machine"
    with pytest.raises(DataError, match="no torch model"):
        _ = predictor.model


def test_any_changed_byte_is_an_error(exported: Path, tmp_path: Path) -> None:
    content, copy = exported.read_bytes(), tmp_path / "copy.onnx"
    for position in (0, len(content) // 3, len(content) - 700, len(content) - 100, len(content) - 80, -1):
        changed = bytearray(content)
        changed[position] ^= 1
        copy.write_bytes(changed)
        with pytest.raises(DataError, match=r"checksum is wrong or missing.*export the run again"):
            Predictor(copy)
    for changed_length in (content[:-1], content[: len(content) // 2], b"", content + b"\0"):
        copy.write_bytes(changed_length)
        with pytest.raises(DataError, match=r"copy\.onnx: its checksum"):
            Predictor(copy)
    copy.write_bytes(content)
    assert read_exported(copy) == content, "control"
    Predictor(copy)


def test_other_files_and_devices_are_named(exported: Path, onnx_of_run: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx: no such exported file"):
        Predictor(tmp_path / "nothing.onnx")
    with pytest.raises(DataError, match="device 'tpu' is unknown to ONNX Runtime; use cpu"):
        Predictor(exported, "tpu")
    description = Predictor(exported).backend.description
    assert isinstance(description, ExportedModel)
    newer, bare = tmp_path / "newer.onnx", tmp_path / "bare.onnx"
    newer.write_bytes(exported_content(onnx_of_run, replace(description, format=FORMAT + 1)))
    with pytest.raises(DataError, match="format 2 is newer than 1"):
        Predictor(newer)
    bare.write_bytes(exported_content(b"no graph", description))
    with pytest.raises(DataError, match="ONNX Runtime cannot run it"):
        Predictor(bare)
    bare.write_bytes(exported_content(onnx_of_run, replace(description, task="classify", keypoints=None)))
    with pytest.raises(DataError, match="its outputs are boxes, labels, scores, masks; a file of detseg has probab"):
        Predictor(bare)
    newer.write_bytes(exported_content(onnx_of_run, description))
    Predictor(newer)  # control


def test_metadata_and_graph_are_those_of_onnx(exported: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    model = onnx.load(exported)
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    values = json.loads(metadata["detseg"])
    assert values["class_map"]["names"] == ["bolt", "nut", "washer"]
    assert msgspec.convert(values, ExportedModel) == Predictor(exported).backend.description
    (entry,) = model.graph.input
    assert [axis.dim_param or axis.dim_value for axis in entry.type.tensor_type.shape.dim] == ["height", "width", 3]
    assert [output.name for output in model.graph.output] == ["boxes", "labels", "scores", "masks"]


def test_predictor_needs_no_torch(exported: Path, image: Path) -> None:
    result = without(MINIMAL, PREDICT, exported, image)
    assert result.returncode == 0, result.stderr
    predictor = Predictor(exported)
    expected = to_results(predictor(image), predictor.class_map)
    assert len(expected) > 3
    assert json.loads(result.stdout) == json.loads(json.dumps(expected))
    assert result.stderr == ""


def test_control_a_checkpoint_needs_torch(run: Path, image: Path) -> None:
    result = without(MINIMAL, PREDICT, run, image)
    assert result.returncode == 1
    assert "No module named 'torch'" in result.stderr


def test_the_command_predict_needs_no_torch(exported: Path, image: Path, tmp_path: Path) -> None:
    heavy = ("torch", "torchvision", "safetensors", "albumentations", "hotcoco", "timm")
    result = without(heavy, COMMAND, "predict", exported, image, "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "images" / f"{image.name}.jpg").is_file()
    predictor = Predictor(exported)
    prediction = predictor(image)
    assert isinstance(prediction, Prediction)
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == len(prediction)


@pytest.mark.slow
def test_pixels_bytes_and_files_give_one_result(exported: Path, image: Path) -> None:
    from detseg.images import decode_image

    predictor = Predictor(exported)
    first, second, third = predictor.many([image, image.read_bytes(), decode_image(image)])
    for other in (second, third):
        np.testing.assert_array_equal(first.boxes, other.boxes)  # type: ignore[union-attr]
    assert predictor.many([]) == []


def test_commands_that_need_a_run_name_the_remedy(
    exported: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, message in (
        (["export", str(exported)], "is an exported file; pass the run folder or a checkpoint file"),
        (["evaluate", str(exported), str(parts)], "here pass the run that it was exported from"),
        (["train", str(parts), "--weights", str(exported), "--output", str(tmp_path)], "has no weights that can be"),
    ):
        assert main(command) == 1
        assert message in capsys.readouterr().err
