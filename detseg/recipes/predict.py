"""Run a trained model on images and folders; write results and images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from detseg.annotations.own_files import DRAWINGS, PREDICTED_IMAGES
from detseg.annotations.rename import rename_class_map
from detseg.annotations.repair_log import NAMED, RepairLog
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.inference.image_inputs import find_images
from detseg.inference.prediction_files import (
    PredictionLines,
    check_output,
    drawing_path,
    read_failures,
    remove_earlier,
    write_images,
    write_predictions,
)
from detseg.inference.predictor import Predictor
from detseg.inference.results import to_results
from detseg.options import PredictConfig
from detseg.reports.draw import draw, draw_class
from detseg.reports.sheet import write_image
from detseg.runtime.files import WriteError
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder, locked
from detseg.short_text import as_unicode, counted, printable_name
from detseg.structures import ClassPrediction, FieldPredictions, Prediction

AnyPrediction = Prediction | ClassPrediction | FieldPredictions


@dataclass(frozen=True)
class PredictResult:
    """What ``predict`` wrote.

    Attributes:
        folder: of predictions.jsonl, predictions.json, images.json and the drawings.
        images: number of images.
        failures: number of images without results.
        not_drawn: number of images whose drawing could not be written.
        no_space: why no more images were drawn: the disk is full; "" if it is not.
    """

    folder: Path
    images: int
    failures: int
    not_drawn: int
    no_space: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether every image has its results and its drawing."""
        return not (self.failures or self.not_drawn or self.no_space)

    @property
    def results(self) -> list[dict[str, Any]]:
        """COCO results format with file names, one dict per detection (for classifiers, per image or label field); read
        from predictions.json."""
        results: list[dict[str, Any]] = json.loads(RunFolder(self.folder).predictions.read_bytes())
        return results

    @property
    def failed(self) -> list[str]:
        """``file: reason`` for each image without results."""
        return list(read_failures(self.folder))


def predict(config: PredictConfig, *, reporter: Reporter | None = None) -> PredictResult:
    """Predict all of ``config.images``; a file that cannot be used is reported and costs that file only.

    Results are written as they come, so that memory does not depend on their number.

    Raises:
        DataError: there are no images, or none can be read; or the output would replace other files.
        OSError: the output cannot be written.
    """
    reporter, notes = reporter or terminal(), RepairLog()
    check_output(Path(config.output))
    files = find_images(config.images, notes, config.follow_links, config.output)
    reporter.lines([f"note: {line}" for line in notes.lines()])
    predictor = Predictor(config.run, config.device)
    if config.rename is not None:
        predictor.class_map = rename_class_map(
            predictor.class_map, predictor.label_fields, config.rename, f"the run {config.run}"
        )
    with locked(Path(config.output), images=DRAWINGS):
        return _predict(config, files, predictor, reporter)


def _predict(
    config: PredictConfig, files: list[tuple[Path, str]], predictor: Predictor, reporter: Reporter
) -> PredictResult:
    output, not_drawn, no_space, results, above = Path(config.output), RepairLog(), "", 0, 0
    reporter.lines([*predictor.preprocessing.lines(), *remove_earlier(output)])
    progress = reporter.progress(files, "predict", total=len(files), unit="image", leave=True)
    with PredictionLines(output) as lines:
        for image_id, (path, name, prediction) in enumerate(_predictions(progress, predictor), start=1):
            if isinstance(prediction, Exception) or not lines.results(
                image_id, name, values := to_results(prediction, predictor.class_map)
            ):
                reason = (
                    prediction if isinstance(prediction, Exception) else "the results have numbers that are not finite"
                )
                lines.failure(image_id, name, _message(reason, path, name))
                continue
            results += len(values)
            above += sum(result["score"] >= config.min_score for result in values)
            if not no_space and config.draw:
                try:
                    _write_drawing(path, drawing_path(output, name), prediction, predictor, config.min_score, reporter)
                except WriteError as error:  # the predictions are worth more than the images
                    no_space = f"{error.problem}; no more images are drawn"
                    reporter.warning(f"warning: {no_space}")
                except (ValueError, OSError) as error:
                    not_drawn.add("drawing could not be written", printable_name(_message(error, path, name)))
    write_predictions(output)
    write_images(output, [name for _, name in files], _categories(predictor))
    result = PredictResult(output, len(files), lines.failures, sum(not_drawn.counts.values()), no_space)
    _report(result, results, above, config, reporter)
    reporter.lines([f"note: {line}" for line in not_drawn.lines()])
    return result


def _predictions(
    files: Iterable[tuple[Path, str]], predictor: Predictor
) -> Iterator[tuple[Path, str, AnyPrediction | Exception]]:
    """The prediction of each image in order; for an image that cannot be used, the reason."""
    for path, name in files:
        try:
            yield path, name, predictor(path)
        except (ValueError, OSError, MemoryError) as error:
            yield path, name, error


def _message(reason: Exception | str, path: Path, name: str) -> str:
    """``file: reason``, as valid Unicode."""
    text = as_unicode(str(reason) or type(reason).__name__)
    return text if as_unicode(path.name) in text else f"{name}: {text}"


def _categories(predictor: Predictor) -> list[dict[str, Any]]:
    points: dict[str, Any] = {}
    if predictor.keypoints:
        skeleton = [(a + 1, b + 1) for a, b in predictor.keypoints.skeleton]
        points = {"keypoints": predictor.keypoints.names, "skeleton": skeleton}
    return [
        {"id": predictor.class_map.category_id_of(label), "name": name, **points}
        for label, name in enumerate(predictor.class_map.names, start=1)
    ]


def _report(result: PredictResult, results: int, above: int, config: PredictConfig, reporter: Reporter) -> None:
    """Report the counts, the files and the first images that failed.

    Raises:
        DataError: no image could be read.
    """
    output, failures = result.folder, result.failures
    first = [printable_name(message) for message in islice(read_failures(output), NAMED)]
    if failures == result.images:
        raise DataError(f"none of {counted(failures, 'image')} could be read: {'; '.join(first)}")
    reporter.line(
        f"{result.images - failures} images, {results} results, {above} of them with a score >= {config.min_score}"
        + (f"; {failures} of {result.images} images could not be read" if failures else "")
    )
    drawn = f" and {output / DRAWINGS}" if config.draw else ""
    reporter.done(output, f"wrote {RunFolder(output).predictions}{drawn}")
    for message in first:
        reporter.warning(f"could not be read: {message}")
    if failures > len(first):
        reporter.warning(f"and {failures - len(first)} more, which {output / PREDICTED_IMAGES} lists")


def _write_drawing(
    path: Path,
    drawing: Path,
    prediction: AnyPrediction,
    predictor: Predictor,
    min_score: float,
    reporter: Reporter,
) -> None:
    image = decode_image(path, value_range=predictor.preprocessing.value_range)
    if not isinstance(prediction, Prediction):
        drawn = draw_class(image, prediction, predictor.class_map, reporter=reporter)
    else:
        skeleton = predictor.keypoints.skeleton if predictor.keypoints else ()
        drawn = draw(image, prediction, predictor.class_map, min_score=min_score, skeleton=skeleton, reporter=reporter)
    write_image(drawing, drawn)
