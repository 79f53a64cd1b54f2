"""Run a trained model on images and folders; write results and images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.inference.image_inputs import find_images
from detseg.inference.predictor import Predictor
from detseg.inference.results import to_results
from detseg.options import PredictConfig
from detseg.reports.draw import draw, draw_class
from detseg.reports.sheet import write_image
from detseg.runtime.files import WriteError, write_json
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder, locked
from detseg.structures import ClassPrediction, FieldPredictions, Prediction


@dataclass(frozen=True)
class PredictResult:
    """Results of ``predict``.

    Attributes:
        results: COCO results format with file names, one dict per detection (for classifiers, per image or label
            field).
        failed: "file: reason" for each file that could not be read, or not be written.
    """

    results: list[dict[str, Any]]
    failed: list[str]


def predict(config: PredictConfig, *, reporter: Reporter | None = None) -> PredictResult:
    """Predict all of ``config.images``; a file that cannot be read is reported and skipped."""
    reporter, notes = reporter or terminal(), RepairLog()
    files = find_images(config.images, notes, config.follow_links)
    reporter.lines([f"note: {line}" for line in notes.lines()])
    predictor = Predictor(config.run, config.device)
    with locked(Path(config.output), images="images"):
        return _predict(config, files, predictor, reporter)


def _predict(
    config: PredictConfig, files: list[tuple[Path, str]], predictor: Predictor, reporter: Reporter
) -> PredictResult:
    output = Path(config.output)
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    no_space = ""
    reporter.lines(predictor.preprocessing.lines())
    progress = reporter.progress(files, "predict", total=len(files), unit="image", leave=True)
    for image_id, (path, name) in enumerate(progress, start=1):
        try:
            prediction = predictor(path)
        except (DataError, OSError) as error:
            failed.append(str(error) if Path(name).name in str(error) else f"{name}: {error}")
            continue
        results.extend(
            {"image_id": image_id, "file_name": name, **result}
            for result in to_results(prediction, predictor.class_map)
        )
        if config.draw and not no_space:
            image = _draw_prediction(path, prediction, predictor, config.min_score, reporter)
            try:
                write_image(output / "images" / f"{name}.jpg", image)
            except WriteError as error:  # the predictions are worth more than the images
                no_space = f"{error.problem}; no more images are drawn"
                reporter.warning(f"warning: {no_space}")
    write_json(RunFolder(output).predictions, results)
    images = [{"id": image_id, "file_name": name} for image_id, (_, name) in enumerate(files, start=1)]
    points: dict[str, Any] = {}
    if predictor.keypoints:
        skeleton = [(a + 1, b + 1) for a, b in predictor.keypoints.skeleton]
        points = {"keypoints": predictor.keypoints.names, "skeleton": skeleton}
    categories = [
        {"id": predictor.class_map.category_id_of(label), "name": name, **points}
        for label, name in enumerate(predictor.class_map.names, start=1)
    ]
    write_json(output / "images.json", {"images": images, "categories": categories, "failed": failed})
    above = sum(result["score"] >= config.min_score for result in results)
    reporter.line(
        f"{len(files) - len(failed)} images, {len(results)} results, {above} of them with a score >= {config.min_score}"
    )
    drawn = f" and {output / 'images'}" if config.draw else ""
    reporter.done(output, f"wrote {output / 'predictions.json'}{drawn}")
    for message in failed:
        reporter.warning(f"could not be read: {message}")
    return PredictResult(results, [*failed, no_space] if no_space else failed)


def _draw_prediction(
    path: Path,
    prediction: Prediction | ClassPrediction | FieldPredictions,
    predictor: Predictor,
    min_score: float,
    reporter: Reporter,
) -> Any:
    image = decode_image(path, value_range=predictor.preprocessing.value_range)
    if not isinstance(prediction, Prediction):
        return draw_class(image, prediction, predictor.class_map, reporter=reporter)
    skeleton = predictor.keypoints.skeleton if predictor.keypoints else ()
    return draw(image, prediction, predictor.class_map, min_score=min_score, skeleton=skeleton, reporter=reporter)
