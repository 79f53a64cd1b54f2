"""Check that evaluation, prediction and an exported file of a run give the same results for the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detseg.checkpoints.checkpoint import load
from detseg.errors import DataError
from detseg.export.exported_file import SUFFIX, checksum_of
from detseg.inference.agreement import Agreement, compare
from detseg.inference.predictor import Predictor
from detseg.options import SelfcheckConfig
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.short_text import counted
from detseg.training.compared_images import evaluated_predictions, validation_images
from detseg.training.run_evaluation import saved_options


@dataclass(frozen=True)
class SelfcheckResult:
    """What ``selfcheck`` compared with the evaluation: ``stages`` are "predict" and, with a file, "export"."""

    images: int
    stages: dict[str, Agreement]


def selfcheck(config: SelfcheckConfig, *, reporter: Reporter | None = None) -> SelfcheckResult:
    """Compare the predictions of ``predict``, and of an exported file, with those that ``evaluate`` computes.

    Raises:
        DataError: a stage differs beyond the tolerances, which the message names with the first such image; the file
            was exported from another checkpoint; or the validation images cannot be used.
        OSError: the run, the file or the data is missing.
    """
    reporter, run = reporter or terminal(), Path(config.run)
    table = validation_images(config.run, config.data, config.images, reporter)
    model = load(run)
    expected = evaluated_predictions(model, table, saved_options(run).get("batch_size") or 1)
    stages = {"predict": Predictor(run, "cpu")}
    file = _file(config, run)
    if file is not None:
        stages["export"] = _opened(file, RunFolder(run).best if run.is_dir() else run)
    results: dict[str, Agreement] = {}
    for stage, predictor in stages.items():
        total = Agreement()
        for row, prediction in enumerate(expected):
            path = Path(table[row].path)
            total += compare(prediction, predictor(path), path.name, model.description)
        text = f"{stage} and evaluate: {total.line(predictor.task)}"
        if not total.is_within_tolerance:
            raise DataError(f"{config.run}: stage {stage} differs from evaluate, first in {total.worst}: {text}")
        reporter.line(text)
        results[stage] = total
    without = "" if file is not None else f"; no exported file was checked (detseg export {config.run})"
    reporter.line(f"selfcheck of {config.run} passed on {counted(len(table), 'image')}{without}")
    return SelfcheckResult(len(table), results)


def _file(config: SelfcheckConfig, run: Path) -> Path | None:
    """The exported file to check: the one that is named, else ``model.onnx`` of the run folder, if it is there."""
    default = RunFolder.of(run).path / f"model{SUFFIX}"
    return Path(config.file) if config.file else default if default.is_file() else None


def _opened(file: Path, checkpoint: Path) -> Predictor:
    """The exported file, if it was made from ``checkpoint``."""
    predictor = Predictor(file, "cpu")
    if getattr(predictor.backend.description, "checkpoint", "") != checksum_of(checkpoint):
        raise DataError(
            f"{file} was not exported from {checkpoint}, or that has changed; export it again: "
            f"detseg export {checkpoint} --output {file}"
        )
    return predictor
