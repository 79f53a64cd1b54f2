"""Check that evaluation, prediction, an exported file and a server of a run give the same results for its images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detseg.annotations import AnnotationTable
from detseg.checkpoints.checkpoint import load
from detseg.errors import DataError
from detseg.export.exported_file import SUFFIX, ExportedModel, Quantization
from detseg.inference.agreement import Agreement, AnyPrediction, compare
from detseg.inference.predictor import Predictor
from detseg.options import SelfcheckConfig
from detseg.runtime.checksum import file_checksum
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.serving.client import Client
from detseg.serving.reply import from_reply
from detseg.short_text import counted
from detseg.training.compared_images import evaluated_predictions, validation_images
from detseg.training.int8_choice import evaluated_table, measure
from detseg.training.run_evaluation import saved_options

LOSS_TOLERANCE = 0.005
"""Most difference of an int8 file's share of lost AP from the one that it states: processors round differently."""


@dataclass(frozen=True)
class SelfcheckResult:
    """What ``selfcheck`` compared.

    Attributes:
        images: number of images.
        stages: "predict", with a float32 file "export", and with a server "serve".
        losses: of an int8 file, measured: metric -> share of it that is lost.
    """

    images: int
    stages: dict[str, Agreement]
    losses: dict[str, float] | None = None


def selfcheck(config: SelfcheckConfig, *, reporter: Reporter | None = None) -> SelfcheckResult:
    """Compare the predictions of ``predict``, of an exported file, and of a server with those that ``evaluate``
    computes. An int8 file is compared by its loss of AP; a server of it with the file.

    Raises:
        DataError: a stage differs beyond the tolerances, which the message names with the first such image; an int8
            file loses more or less than it states; the file was exported from another checkpoint; the server was not
            reached or has another model; or the validation images cannot be used.
        OSError: the run, the file or the data is missing.
    """
    reporter, run = reporter or terminal(), Path(config.run)
    if config.file and config.file.startswith(("http://", "https://")):  # RUN URL
        config = replace(config, file=None, url=config.file)
    table = validation_images(config.run, config.data, config.images, reporter)
    model = load(run)
    expected = evaluated_predictions(model, table, saved_options(run).get("batch_size") or 1)
    reference = "evaluate"
    check = _Check(config, table, model, reporter)
    stages = {"predict": check.stage("predict", Predictor(run, "cpu"), expected)}
    file, losses = _file(config, run), None
    if file is not None:
        exported = _opened(file, RunFolder(run).best if run.is_dir() else run)
        quantization = getattr(exported.backend.description, "quantization", None)
        if quantization is None:
            stages["export"] = check.stage("export", exported, expected)
        else:
            losses = check.loss(file, exported, quantization)
            reference, expected = str(file), [exported(Path(table[row].path)) for row in range(len(table))]
    if config.url is not None:
        stages["serve"] = check.stage("serve", _served(config, model), expected, reference)
    missing = [] if file is not None else [f"no exported file was checked (detseg export {config.run})"]
    missing += [] if config.url is not None else ["no server"]
    text = f"selfcheck of {config.run} passed on {counted(len(table), 'image')}"
    reporter.line("; ".join([text, *missing]))
    return SelfcheckResult(len(table), stages, losses)


@dataclass(frozen=True)
class _Check:
    """What the checks of all stages share."""

    config: SelfcheckConfig
    table: AnnotationTable
    model: Any
    reporter: Reporter

    def stage(
        self,
        name: str,
        predict: Callable[[Path], AnyPrediction],
        expected: list[AnyPrediction],
        reference: str = "evaluate",
    ) -> Agreement:
        """Compare the predictions of a stage with those that are expected; DataError beyond the tolerances."""
        total, description = Agreement(), self.model.description
        for row, prediction in enumerate(expected):
            path = Path(self.table[row].path)
            total += compare(prediction, predict(path), path.name, description)
        text = f"{name} and {reference}: {total.line(description.task)}"
        if not total.is_within_tolerance:
            run, worst = self.config.run, total.worst
            raise DataError(f"{run}: stage {name} differs from {reference}, first in {worst}: {text}")
        self.reporter.line(text)
        return total

    def loss(self, file: Path, exported: Predictor, stated: Quantization) -> dict[str, float]:
        """The losses of an int8 file, on the images that they were measured on; DataError if it states others."""
        if exported.preprocessing != self.model.preprocessing:
            raise DataError(f"{self.config.run}: stage export differs from evaluate: {file} has another preprocessing")
        table = evaluated_table(self.config.run, self.config.data, self.model.description, self.reporter)
        measured = measure({"evaluate": Predictor(self.model, "cpu"), "export": exported}, table, self.reporter)
        losses = measured.losses("export", "evaluate")
        for metric, loss in losses.items():
            claim = f"int8 of {stated.parts} loses {loss:.2%} of {metric} on {counted(len(table), 'image')}"
            claim += f"; {file} states {stated.losses.get(metric, 0.0):.2%} on {stated.images}"
            if not abs(loss - stated.losses.get(metric, 0.0)) <= LOSS_TOLERANCE:
                raise DataError(f"{self.config.run}: stage export differs from evaluate: {claim}")
            self.reporter.line(f"export and evaluate: {claim}")
        return losses


def _file(config: SelfcheckConfig, run: Path) -> Path | None:
    """The exported file to check: the one that is named, else ``model.onnx`` of the run folder, if it is there."""
    default = RunFolder.of(run).path / f"model{SUFFIX}"
    return Path(config.file) if config.file else default if default.is_file() else None


def _opened(file: Path, checkpoint: Path) -> Predictor:
    """The exported file, if it was made from ``checkpoint``."""
    predictor = Predictor(file, "cpu")
    description = predictor.backend.description
    if not isinstance(description, ExportedModel) or description.checkpoint != file_checksum(checkpoint):
        raise DataError(
            f"{file} was not exported from {checkpoint}, or that has changed; export it again: "
            f"detseg export {checkpoint} --output {file}"
        )
    return predictor


def _served(config: SelfcheckConfig, model: Any) -> Callable[[Path], AnyPrediction]:
    """The predictions of a server for image files, if it has the classes of the model."""
    client = Client(str(config.url), token=config.token or os.environ.get("DETSEG_TOKEN"))
    served, names = client.model(), list(model.description.class_map.names)
    if served.get("task") != model.description.task or served.get("classes") != names:
        raise DataError(
            f"{config.url} serves another model than {config.run}; start it with: detseg serve {config.run}"
        )
    return lambda path: from_reply(client.predict(path, top=len(names)), served)
