"""Choose what of a network is quantized to int8, by the loss of AP or accuracy on validation images."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations import AnnotationTable
from detseg.engine.evaluator import make_evaluator
from detseg.errors import DataError
from detseg.export.exported_file import SUFFIX, ExportedModel, Quantization, exported_content, write_exported
from detseg.export.quantize import quantizable_parts, quantized
from detseg.inference.evaluation import match_classes
from detseg.inference.predictor import Predictor
from detseg.options import EvaluateConfig, ExportConfig
from detseg.reports.table import align
from detseg.runtime.reporter import Reporter
from detseg.short_text import counted
from detseg.structures import RawPrediction
from detseg.training.compared_images import validation_images
from detseg.training.evaluated_images import select_split
from detseg.training.run_evaluation import saved_options

FLOAT = "float32"
TORCH = "float32 in torch"
EVALUATED = 500
"""Most validation images that the loss is measured on."""
TRIED = 4
"""Training images that are tried per image for the calibration; those without detections are not used."""


@dataclass(frozen=True)
class Measured:
    """Metrics of several networks for the same images, and the seconds that their predictions took."""

    metrics: dict[str, dict[str, float]]
    seconds: dict[str, float]

    def losses(self, name: str, reference: str) -> dict[str, float]:
        """Metric -> share of it that ``name`` loses against ``reference``; DataError if the reference has none."""
        before = {metric: value for metric, value in self.metrics[reference].items() if value > 0}
        if not before:
            raise DataError(
                "the model finds nothing in the validation images: what int8 costs cannot be measured; use --to onnx"
            )
        return {metric: (value - self.metrics[name][metric]) / value for metric, value in before.items()}


def int8_content(
    config: ExportConfig, model: Any, graph: bytes, described: ExportedModel, reporter: Reporter
) -> tuple[bytes, Quantization | None]:
    """The content of the int8 file that is the smallest of those whose loss is at most ``config.max_loss``; of the
    float32 file if there is none. Reports what was measured and what is chosen.

    Raises:
        DataError, OSError: the training or validation images are not there, the network finds nothing in them, or ONNX
            Runtime cannot quantize the graph.
    """
    table = evaluated_table(config.run, config.data, described, reporter)
    graphs = {FLOAT: graph}
    with tempfile.TemporaryDirectory() as folder:
        floats = _opened(exported_content(graph, described), Path(folder) / f"float{SUFFIX}")
        predictors = {TORCH: Predictor(model, "cpu"), FLOAT: floats}
        images = _calibration_images(config, floats, reporter)
        parts = quantizable_parts(graph)
        for name in reporter.progress(parts, "quantize", total=len(parts), unit="candidate"):
            graphs[name] = quantized(graph, parts[name], images)
            file = Path(folder) / f"{len(graphs)}{SUFFIX}"
            try:
                predictors[name] = _opened(exported_content(graphs[name], described), file)
            except DataError as error:
                reporter.warning(f"int8 of {name} is left out: {error}")
                del graphs[name]
        measured = measure(predictors, table, reporter)
    losses = {name: measured.losses(name, FLOAT) for name in graphs if name != FLOAT}
    if not losses:
        raise DataError(f"{config.run}: ONNX Runtime runs no int8 file of this network; export with --to onnx")
    reporter.lines([f"int8, measured on {counted(len(table), 'validation image')}:", *_lines(measured, graphs)])
    worst = {name: max(loss, key=lambda metric: loss[metric]) for name, loss in losses.items()}
    shares = {name: losses[name][metric] for name, metric in worst.items()}
    chosen = next((name for name, share in shares.items() if share <= config.max_loss), None)
    if chosen is None:
        best = min(shares, key=lambda name: shares[name])
        reporter.warning(
            f"int8 costs too much: {best}, the best, loses {shares[best]:.1%} of {worst[best]}, and --max-loss is "
            f"{config.max_loss:g}; the file stays float32"
        )
        return exported_content(graph, described), None
    text = f"loses {shares[chosen]:.1%} of {worst[chosen]} (--max-loss {config.max_loss:g})"
    reporter.line(f"int8: {chosen}, the smallest file within the limit, {text}")
    quantization = Quantization(chosen, len(table), losses[chosen])
    return exported_content(graphs[chosen], replace(described, quantization=quantization)), quantization


def evaluated_table(run: str, data: str | None, described: Any, reporter: Reporter) -> AnnotationTable:
    """The validation images on which the loss is measured, with the classes of the model."""
    table = validation_images(run, data, EVALUATED, reporter)
    return match_classes(table, described.class_map, described.label_fields)


def measure(predictors: Mapping[str, Predictor], table: AnnotationTable, reporter: Reporter) -> Measured:
    """Metrics of each predictor; image by image all of them in turn, so that other load affects their times alike."""
    first = next(iter(predictors.values()))
    evaluators = {name: make_evaluator(table, first.task, first.preprocessing) for name in predictors}
    seconds = dict.fromkeys(predictors, 0.0)
    for row in reporter.progress(range(len(table)), "measure int8", total=len(table), unit="image"):
        record = table[row]
        target = {"image_id": np.array(record.image_id), "class_index": np.asarray(record.class_index)}
        if len(record.class_index) == 1:
            target["class_index"] = target["class_index"][0]
        pixels, _ = first.prepare(record.path)
        for name, predictor in predictors.items():
            started = time.perf_counter()
            outputs: Any = predictor.backend([pixels])
            seconds[name] += time.perf_counter() - started
            evaluators[name].update([target], outputs)
    return Measured({name: _main(evaluator.compute().scalars()) for name, evaluator in evaluators.items()}, seconds)


def _main(scalars: Mapping[str, float | None]) -> dict[str, float]:
    """AP of boxes, masks and keypoints, or the accuracy."""
    return {name: value or 0.0 for name, value in scalars.items() if name.endswith("_AP") or name == "accuracy"}


def _calibration_images(
    config: ExportConfig, predictor: Predictor, reporter: Reporter
) -> Sequence[npt.NDArray[np.uint8]]:
    """Training images as inputs of the network, in which it finds something."""
    selection = EvaluateConfig(run=config.run, data=config.data or "", split="train")
    table = select_split(selection, Path(config.run), saved_options(Path(config.run)), reporter).table
    step = max(1, len(table) // (TRIED * config.calibration_images))
    images: list[npt.NDArray[np.uint8]] = []
    for row in range(0, len(table), step):
        pixels, _ = predictor.prepare(table[row].path)
        (output,) = predictor.backend([pixels])
        if not isinstance(output, RawPrediction) or len(output.boxes):
            images.append(pixels)
        if len(images) == config.calibration_images:
            break
    if not images:
        raise DataError(f"{config.run}: the model finds nothing in its training images; int8 needs some; use --to onnx")
    return images


def _opened(content: bytes, file: Path) -> Predictor:
    write_exported(file, content)
    return Predictor(file, "cpu")


def _lines(measured: Measured, graphs: Mapping[str, bytes]) -> list[str]:
    """A table of all networks; the speed is relative to torch, of the network alone."""
    names = list(measured.metrics[FLOAT])
    rows = [
        [
            name,
            *(f"{measured.metrics[name][metric]:.4f}" for metric in names),
            f"{len(graphs[name]) / 1e6:.1f} MB" if name in graphs else "",
            f"{measured.seconds[TORCH] / max(measured.seconds[name], 1e-9):.2f}",
        ]
        for name in measured.metrics
    ]
    return align(rows, ["", *names, "size", "speed"])
