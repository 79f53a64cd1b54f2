"""Write the results of a stream of predictions as they come, and the other outputs from them at the end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.inference.csv_results import write_csv
from detseg.inference.image_outputs import KINDS as IMAGE_KINDS
from detseg.inference.image_outputs import ImageOutputs, message_of
from detseg.inference.label_files import KINDS as LABEL_KINDS
from detseg.inference.label_files import LabelFiles
from detseg.inference.output_paths import OutputPaths
from detseg.inference.prediction_files import PredictionLines, write_images, write_predictions
from detseg.inference.prediction_stream import PredictedImage
from detseg.inference.predictor import Predictor
from detseg.inference.results import to_results

OF_DETECTORS = ("crops", "masks", "class-masks", *LABEL_KINDS)
OF_MASKS = ("masks", "class-masks")


@dataclass
class WrittenCounts:
    """What was written while images were predicted.

    Attributes:
        results: number of results.
        above: number of them with the minimum score.
        failures: number of images without results.
        not_written: files for which there was an error, as counts and examples.
        no_space: why no more images were written: the disk is full; "" if it is not.
    """

    results: int = 0
    above: int = 0
    failures: int = 0
    not_written: RepairLog = field(default_factory=RepairLog)
    no_space: str = ""

    @classmethod
    def of_all(cls, parts: Iterable[dict[str, Any]]) -> WrittenCounts:
        """The sum of what several processes have written, of their ``asdict``."""
        total = cls()
        for part in parts:
            total.results += part["results"]
            total.above += part["above"]
            total.failures += part["failures"]
            total.not_written.merge(RepairLog(**part["not_written"]))
            total.no_space = total.no_space or part["no_space"]
        return total

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_outputs(outputs: Collection[str], predictor: Predictor) -> None:
    """DataError if the model cannot make an output."""
    for kind in outputs:
        if kind in OF_DETECTORS and predictor.task == "classify":
            raise DataError(
                f"--outputs {kind}: a classifier finds no objects; use csv, coco or images, or chain it: "
                "predict DETECTOR IMAGES --then CLASSIFIER"
            )
        if kind in OF_MASKS and predictor.task != "segment":
            raise DataError(
                f"--outputs {kind}: this model predicts no masks (task {predictor.task}); use crops or coco"
            )


def write_stream(
    images: Iterable[PredictedImage],
    lines: PredictionLines,
    outputs: ImageOutputs,
    predictor: Predictor,
    min_score: float,
) -> WrittenCounts:
    """Write a line, and the outputs that need pixels, for each image."""
    counts = WrittenCounts()
    for image in images:
        file = image.file
        if image.prediction is None:
            assert image.error is not None, "one of both is there"
            lines.failure(file.image_id, file.name, message_of(image.error, file.path, file.name))
            continue
        values = to_results(image.prediction, predictor.class_map)
        if write_results(lines, counts, file.image_id, file.name, values, image.size_hw, min_score):
            outputs.write(image, values)
    counts.failures, counts.not_written, counts.no_space = lines.failures, outputs.not_written, outputs.no_space
    return counts


def write_results(
    lines: PredictionLines,
    counts: WrittenCounts,
    image_id: int,
    name: str,
    results: Sequence[dict[str, Any]],
    size_hw: tuple[int, int],
    min_score: float,
    place: Mapping[str, Any] | None = None,
) -> bool:
    """Write the line of an image and count its results, or write that it has none: a number is not finite. Returns
    whether it has results; see ``PredictionLines.results``."""
    if not lines.results(image_id, name, results, size_hw, place):
        lines.failure(image_id, name, f"{name}: the results have numbers that are not finite", place)
        return False
    counts.results += len(results)
    counts.above += sum(result["score"] >= min_score for result in results)
    return True


def image_kinds(outputs: Collection[str]) -> list[str]:
    """The outputs that are written while images are predicted."""
    return [kind for kind in IMAGE_KINDS if kind in outputs]


def write_outputs(
    paths: OutputPaths, outputs: Collection[str], predictor: Predictor, sources: dict[str, Path], min_score: float
) -> tuple[RepairLog, RepairLog]:
    """Write the outputs that follow from ``predictions.jsonl``.

    Args:
        sources: name -> image file.

    Returns:
        What a format cannot store, and files that could not be written.
    """
    folder = paths.folder
    if "coco" in outputs:
        write_predictions(folder)
    write_images(folder, categories(predictor))
    if "csv" in outputs:
        second = predictor.then
        write_csv(
            folder,
            predictor.class_map,
            is_classifier=predictor.task == "classify",
            label_fields=predictor.label_fields,
            schema=predictor.keypoints,
            second_fields=() if second is None else [item.name for item in second.label_fields] or ("",),
        )
    labels = LabelFiles(paths, predictor.class_map, predictor.keypoints, min_score)
    labels.write([kind for kind in LABEL_KINDS if kind in outputs], sources)
    return labels.notes, labels.not_written


def categories(predictor: Predictor) -> list[dict[str, Any]]:
    """The classes, as COCO's categories."""
    points: dict[str, Any] = {}
    if predictor.keypoints:
        skeleton = [(a + 1, b + 1) for a, b in predictor.keypoints.skeleton]
        points = {"keypoints": predictor.keypoints.names, "skeleton": skeleton}
    return [
        {"id": predictor.class_map.category_id_of(label), "name": name, **points}
        for label, name in enumerate(predictor.class_map.names, start=1)
    ]
