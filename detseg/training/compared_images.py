"""Compare an exported file with its run on validation images of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detseg.errors import DataError
from detseg.inference.agreement import Agreement, compare
from detseg.inference.predictor import Predictor
from detseg.options import EvaluateConfig, ExportConfig
from detseg.runtime.reporter import Reporter
from detseg.short_text import counted
from detseg.training.evaluated_images import select_split
from detseg.training.run_evaluation import saved_options


def compare_with_torch(config: ExportConfig, model: Any, file: Path, reporter: Reporter) -> Agreement | None:
    """Predict images with the model and with its exported file, and report the worst differences.

    Returns:
        The differences; None if the data of the run is not there, which is reported: predictions for generated images
        would show little, because a detector finds nothing in them, or has ties.

    Raises:
        DataError: the differences are beyond the tolerances; or ``config.data`` cannot be used.
    """
    try:
        paths = _paths(config, reporter)
    except (DataError, OSError) as error:
        if config.data:
            raise
        reporter.warning(f"not compared with torch, without validation images: {error}; pass images with --data")
        return None
    exported, original = Predictor(file, "cpu"), Predictor(model, "cpu")
    total = Agreement()
    for path in paths:
        total += compare(original(path), exported(path), path.name, original.backend.description)
    text = f"compared with torch on {counted(len(paths), 'image')}: {total.line(original.task)}"
    if not total.is_within_tolerance:
        raise DataError(f"{config.run}: the exported file differs from the run, first in {total.worst}: {text}")
    reporter.line(text)
    if not total.compared:
        reporter.warning("these images have no detections with different scores: the comparison shows little")
    return total


def _paths(config: ExportConfig, reporter: Reporter) -> list[Path]:
    """``config.images`` validation images, evenly spaced."""
    selection = EvaluateConfig(run=config.run, data=config.data or "")
    table = select_split(selection, Path(config.run), saved_options(Path(config.run)), reporter).table
    step = max(1, len(table) // config.images)
    return [Path(table[row].path) for row in range(0, len(table), step)[: config.images]]
