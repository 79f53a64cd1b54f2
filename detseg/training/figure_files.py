"""Write the figures of a run or of an evaluation as PNG files, for ``--figures``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.annotations import AnnotationTable
from detseg.datasets import Dataset, data_loader, preset
from detseg.models import Model
from detseg.options.plan import Plan
from detseg.reports.comparison import AnyPrediction
from detseg.reports.figure import write_figure
from detseg.runtime.reporter import Reporter
from detseg.training import figures
from detseg.training.tile_choice import choice_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH_IMAGES = 4


def write_result_figures(
    folder: Path, table: AnnotationTable, predictions: Mapping[int, AnyPrediction], model: Any, reporter: Reporter
) -> None:
    """Write pr.png, confusion.png, predictions.png and mistakes.png of a model's predictions for ``table``.

    Raises:
        DataError: matplotlib is not installed.
    """
    value_range = model.preprocessing.value_range
    drawn: dict[str, Callable[[], Figure]] = {
        "pr": lambda: figures.plot_pr(table, predictions),
        "confusion": lambda: figures.plot_confusion(table, predictions),
        "predictions": lambda: figures.show_predictions(table, predictions, value_range=value_range),
        "mistakes": lambda: figures.show_mistakes(table, predictions, value_range=value_range),
    }
    _write(folder, drawn, reporter)


def write_training_figures(
    folder: Path, plan: Plan, rows: Sequence[Any], train: AnnotationTable | None, model: Model, reporter: Reporter
) -> None:
    """Write history.png, and of a table samples.png and batch.png, as the network gets them in training.

    Raises:
        DataError: matplotlib is not installed.
    """
    drawn: dict[str, Callable[[], Figure]] = {"history": lambda: figures.plot_history(rows)}
    if train is not None:
        task, seed = plan.model.task, plan.run.seed
        dataset = Dataset(
            train, model.preprocessing, task=task, augment=preset(plan.training.augment, task), seed=seed,
            tiles=choice_of(plan),
        )  # fmt: skip
        drawn["samples"] = lambda: figures.show_samples(dataset)
        drawn["batch"] = lambda: figures.show_batch(
            data_loader(dataset, min(BATCH_IMAGES, len(dataset)), shuffle=True, seed=seed, workers=0)
        )
    _write(folder, drawn, reporter)


def _write(folder: Path, drawn: Mapping[str, Callable[[], Figure]], reporter: Reporter) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in _progress(drawn, reporter):
        path = folder / f"{name}.png"
        write_figure(figure(), path)
        reporter.image(path)


def _progress(
    drawn: Mapping[str, Callable[[], Figure]], reporter: Reporter
) -> Iterator[tuple[str, Callable[[], Figure]]]:
    yield from reporter.progress(drawn.items(), "figures", total=len(drawn), unit="figure")
