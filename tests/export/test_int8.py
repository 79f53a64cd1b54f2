"""``detseg export --to onnx-int8``: what is quantized, how it is chosen, what the file states, and its selfcheck."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from detseg.cli import main
from detseg.errors import DataError
from detseg.export.exported_file import ExportedModel, Quantization, exported_content
from detseg.export.quantize import quantizable_parts
from detseg.inference.predictor import Predictor
from detseg.options import ExportConfig, SelfcheckConfig
from detseg.recipes.selfcheck import selfcheck
from detseg.runtime.reporter import Reporter, silent
from detseg.training import int8_choice
from detseg.training.int8_choice import FLOAT, Measured, int8_content

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")


def described(file: Path) -> ExportedModel:
    description = Predictor(file).backend.description
    assert isinstance(description, ExportedModel)
    return description


def test_only_layers_and_their_activations_are_quantized(onnx_of_run: bytes) -> None:
    parts = quantizable_parts(onnx_of_run)
    assert list(parts) == ["everything", "all but depthwise convolutions", "neck and heads", "heads"]
    kinds = {node.name: node.op_type for node in onnx.load_from_string(onnx_of_run).graph.node}
    assert {kinds[name] for name in parts["everything"]} == {"Conv", "Gemm", "Relu", "Clip"}
    for larger, smaller in zip(parts.values(), list(parts.values())[1:], strict=False):
        assert set(smaller) < set(larger)
    assert not any("/body/" in name for name in parts["neck and heads"])
    assert any("/body/" in name for name in parts["everything"]), "control"


@pytest.mark.parametrize(
    ("max_loss", "expected"),
    [(0.0, None), (0.011, "heads"), (0.02, "heads"), (0.031, "neck and heads"), (0.5, "everything")],
)
def test_the_smallest_file_within_the_limit_is_chosen(
    max_loss: float,
    expected: str | None,
    run: Path,
    exported: Path,
    onnx_of_run: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of box and mask AP the one that loses more counts."""
    box = {"everything": 0.4, "all but depthwise convolutions": 0.4, "neck and heads": 0.5, "heads": 0.495}
    mask = {"everything": 0.5, "all but depthwise convolutions": 0.5, "neck and heads": 0.485, "heads": 0.51}
    metrics = {name: {"bbox_AP": box.get(name, 0.5), "segm_AP": mask.get(name, 0.5)} for name in (*box, FLOAT, "torch")}
    measured = Measured(metrics, dict.fromkeys(metrics, 1.0))

    def measure(*arguments: Any) -> Measured:
        return measured

    monkeypatch.setattr(int8_choice, "TORCH", "torch")
    monkeypatch.setattr(int8_choice, "measure", measure)
    monkeypatch.setattr(int8_choice, "quantized", lambda graph, nodes, images: graph)
    monkeypatch.setattr(int8_choice, "_calibration_images", lambda *arguments: [])
    lines: list[str] = []
    reporter = Reporter(lambda event: lines.append(event.text))
    config = ExportConfig(str(run), to="onnx-int8", max_loss=max_loss)
    model = Predictor(run, "cpu").model
    content, quantization = int8_content(config, model, onnx_of_run, described(exported), reporter)
    if expected is None:
        assert quantization is None
        assert content == exported_content(onnx_of_run, described(exported))
        assert "int8 costs too much: heads, the best, loses 1.0% of bbox_AP" in "\n".join(lines)
    else:
        assert quantization is not None
        assert quantization.parts == expected
        assert quantization.loss == pytest.approx(max(0.5 - box[expected], 0.5 - mask[expected]) / 0.5)


def test_a_model_that_finds_nothing_cannot_be_measured() -> None:
    measured = Measured({FLOAT: {"bbox_AP": 0.0}, "heads": {"bbox_AP": 0.0}}, {})
    with pytest.raises(DataError, match="what int8 costs cannot be measured; use --to onnx"):
        measured.losses("heads", FLOAT)


@pytest.fixture(scope="module")
def int8(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("int8") / "int8.onnx"
    options = ("--to", "onnx-int8", "--max-loss", "1", "--calibration-images", "2")
    assert main(["export", str(run), *options, "--output", str(file)]) == 0
    return file


@pytest.mark.slow
def test_an_int8_file_is_small_states_its_loss_and_passes_its_check(
    int8: Path, run: Path, exported: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantization = described(int8).quantization
    assert quantization is not None
    assert quantization.parts == "everything"
    assert set(quantization.losses) == {"bbox_AP", "segm_AP"}
    assert int8.stat().st_size < 0.4 * exported.stat().st_size
    prediction = Predictor(int8)(next((parts / "val").glob("*.jpg")))
    assert len(prediction) > 0  # type: ignore[arg-type]
    result = selfcheck(SelfcheckConfig(str(run), str(int8)), reporter=silent())
    assert result.losses is not None
    assert result.losses == pytest.approx(quantization.losses, abs=0.005)
    assert "export" not in result.stages


@pytest.mark.slow
@pytest.mark.parametrize("what", ["loss", "preprocessing", "weights"])
def test_control_an_int8_file_that_differs_is_found(what: str, int8: Path, run: Path, tmp_path: Path) -> None:
    content, model = int8.read_bytes(), described(int8)
    graph = content[: content.rindex(b"\x72", 0, content.rindex(b"\x0a\x06detseg\x12"))]
    assert model.quantization is not None
    if what == "loss":
        model = replace(model, quantization=Quantization("everything", 2, {"bbox_AP": 0.9, "segm_AP": 0.9}))
    elif what == "preprocessing":
        larger = replace(model.preprocessing, min_size=model.preprocessing.min_size + 1)
        model = replace(model, preprocessing=larger)
    else:
        changed = onnx.load_from_string(graph)
        name = "cls_score.weight_quantized"
        (weight,) = (item for item in changed.graph.initializer if item.name.endswith(name))
        other_classes = onnx.numpy_helper.to_array(weight)[::-1].copy()
        weight.CopyFrom(onnx.numpy_helper.from_array(other_classes, weight.name))
        graph = changed.SerializeToString()
    file = tmp_path / "changed.onnx"
    file.write_bytes(exported_content(graph, model))
    with pytest.raises(DataError, match="stage export differs from evaluate"):
        selfcheck(SelfcheckConfig(str(run), str(file)), reporter=silent())
