"""Accuracy of a classifier: overall, per class, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.metrics.outputs import to_numpy
from detseg.pr_curve import PrCurve, curve_of_scores
from detseg.short_text import counted, values
from detseg.structures import ClassPrediction

TOP = 5


@dataclass(frozen=True)
class ClassificationMetrics:
    """Counts of correct and wrong predictions.

    Attributes:
        class_names: K names, by class_index.
        confusion: int64 [K, K], row = ground truth, column = prediction.
        top5_hits: number of images whose true class is among the five most probable; None if K is at most 5.
        notes: remarks on the numbers, for example skipped predictions.
    """

    class_names: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    top5_hits: int | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counts = f"{counted(self.images, 'image')}, {counted(len(self.class_names), 'class', 'classes')}"
        return f"ClassificationMetrics({'; '.join(filter(None, [values(self.scalars()), counts]))})"

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float | None:
        """Fraction of images with a correct prediction; None without images."""
        return int(self.confusion.trace()) / self.images if self.images else None

    @property
    def top5(self) -> float | None:
        """Fraction of images whose true class is among the five most probable; None without images or if K <= 5."""
        return None if self.top5_hits is None or not self.images else self.top5_hits / self.images

    @property
    def per_class(self) -> dict[str, float | None]:
        """Fraction of the images of each class with a correct prediction (recall); None for a class without images."""
        totals, hits = self.confusion.sum(axis=1).tolist(), self.confusion.diagonal().tolist()
        return {
            name: hit / total if total else None
            for name, hit, total in zip(self.class_names, hits, totals, strict=True)
        }

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of ``per_class`` over the classes with images."""
        defined = [value for value in self.per_class.values() if value is not None]
        return sum(defined) / len(defined) if defined else None

    def best(self) -> float:
        """Accuracy: the number that selects the best checkpoint; 0.0 without images."""
        return self.accuracy or 0.0

    def scalars(self) -> dict[str, float | None]:
        """Scalar metrics by name."""
        top5 = {} if self.top5_hits is None else {"top5_accuracy": self.top5}
        return {"accuracy": self.accuracy, "balanced_accuracy": self.balanced_accuracy, **top5}

    def to_dict(self) -> dict[str, Any]:
        """All metrics as a JSON-able dict; None where a metric is not defined."""
        totals = self.confusion.sum(axis=1).tolist()
        return {
            **self.scalars(),
            "images": self.images,
            "per_class": {
                name: {"accuracy": value, "images": total}
                for (name, value), total in zip(self.per_class.items(), totals, strict=True)
            },
            "confusion": self.confusion.tolist(),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ClassificationMetrics:
        """Return the metrics of a metrics.json; see :meth:`to_dict`."""
        hits = None
        if "top5_accuracy" in content:
            hits = round((content["top5_accuracy"] or 0.0) * content["images"])
        confusion = np.array(content["confusion"], np.int64)
        return cls(tuple(content["per_class"]), confusion, hits, tuple(content["notes"]))

    def lines(self) -> list[str]:
        """The accuracies in one line, and a table: images, accuracy and most frequent confusion of each class."""
        width = max([len("class"), *(len(name) for name in self.class_names)])
        numbers = [f"{name.replace('_', ' ')} {_cell(value) or 'undefined'}" for name, value in self.scalars().items()]
        lines = [f"{', '.join(numbers)} ({counted(self.images, 'image')})"]
        lines += ["", f"{'class':<{width}}  images  accuracy  most often confused with"]
        for row, (name, value) in enumerate(self.per_class.items()):
            errors = self.confusion[row].copy()
            total = int(errors.sum())
            errors[row] = 0
            other = int(errors.argmax())
            confusion = f"{self.class_names[other]} ({errors[other]})" if errors[other] else ""
            lines.append(f"{name:<{width}}  {total:>6}  {_cell(value):>8}  {confusion}".rstrip())
        return lines + [f"note: {note}" for note in self.notes]


class ClassificationEvaluator:
    """Evaluates one class per image, collected batch by batch.

    A repeated image (samplers of distributed runs repeat some) is not evaluated again: its first prediction is used.

    Args:
        class_map: the K classes.

    Attributes:
        predictions: image id -> the prediction.
        ground_truth: image id -> class_index.
        repeats: number of predictions that were ignored because their image was already evaluated.
    """

    def __init__(self, class_map: ClassMap) -> None:
        self.class_map = class_map
        self.reset()

    def reset(self) -> None:
        """Remove all predictions."""
        self.predictions: dict[int, ClassPrediction] = {}
        self.ground_truth: dict[int, int] = {}
        self.repeats = 0

    @property
    def images_seen(self) -> int:
        return len(self.predictions)

    @property
    def pr_curves(self) -> list[PrCurve]:
        """Precision and recall of each class that has images, against all others."""
        if not self.predictions:
            return []
        probabilities = np.stack([output.probabilities for output in self.predictions.values()]).astype(np.float64)
        rows = np.array(list(self.ground_truth.values()))
        return [
            curve_of_scores(name, probabilities[:, index], rows == index)
            for index, name in enumerate(self.class_map.names)
            if (rows == index).any()
        ]

    def update(self, targets: Sequence[Mapping[str, Any]], outputs: Sequence[ClassPrediction]) -> None:
        """Add a batch.

        Args:
            targets: one dict per image with ``image_id`` and ``class_index`` (0..K-1), ints or tensors of one number.
            outputs: one prediction per image.

        Raises:
            DataError: a class outside 0..K-1, several class labels for one image, a number of probabilities other than
                K, or a probability that is not finite.
        """
        if len(targets) != len(outputs):
            raise DataError(f"{len(targets)} targets but {len(outputs)} outputs; pass one output per image")
        for target, output in zip(targets, outputs, strict=True):
            image_id, ground_truth = int(to_numpy(target["image_id"]).reshape(-1)[0]), to_numpy(target["class_index"])
            self._check(image_id, ground_truth, np.asarray(output.probabilities))
            if image_id in self.predictions:
                self.repeats += 1
                continue
            self.predictions[image_id] = output
            self.ground_truth[image_id] = int(ground_truth.reshape(-1)[0])

    def to_bytes(self) -> bytes:
        """All predictions, for the evaluator of another process; see :meth:`add_bytes`."""
        rows = [
            (image_id, self.ground_truth[image_id], np.asarray(output.probabilities, np.float32).tobytes())
            for image_id, output in self.predictions.items()
        ]
        return msgspec.msgpack.encode((rows, self.repeats))

    def add_bytes(self, content: bytes) -> None:
        """Add the predictions that another process collected with an evaluator of the same classes.

        Raises:
            DataError: both evaluators have the same image; its predictions cannot be separated afterwards.
        """
        rows, repeats = msgspec.msgpack.decode(content, type=tuple[list[tuple[int, int, bytes]], int])
        duplicates = sorted(self.predictions.keys() & {image_id for image_id, _, _ in rows})
        if duplicates:
            raise DataError(f"image {duplicates[0]} was evaluated by two processes; assign each image to one process")
        for image_id, ground_truth, probabilities in rows:
            self.predictions[image_id] = ClassPrediction(np.frombuffer(probabilities, np.float32))
            self.ground_truth[image_id] = ground_truth
        self.repeats += repeats

    def compute(self) -> ClassificationMetrics:
        """Compute the metrics of all predictions so far."""
        notes = [f"{self.repeats} predictions ignored: repeated images"] if self.repeats else []
        confusion, hits = np.zeros((len(self.class_map), len(self.class_map)), np.int64), 0
        for image_id, output in self.predictions.items():
            row = self.ground_truth[image_id]
            confusion[row, output.class_index] += 1
            hits += int(row in np.argsort(-np.asarray(output.probabilities), kind="stable")[:TOP])
        return ClassificationMetrics(
            self.class_map.names, confusion, hits if len(self.class_map) > TOP else None, tuple(notes)
        )

    def _check(self, image_id: int, ground_truth: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> None:
        classes = len(self.class_map)
        if ground_truth.size != 1 or not 0 <= int(ground_truth.reshape(-1)[0]) < classes:
            raise DataError(
                f"image {image_id}: class_index is {ground_truth.tolist()}, but must be one of 0..{classes - 1}; "
                "exclude images without a class from the evaluation"
            )
        if probabilities.shape != (classes,) or not np.isfinite(probabilities).all():
            raise DataError(
                f"image {image_id}: the prediction has shape {list(probabilities.shape)} or numbers that are not "
                f"finite; {classes} finite probabilities are needed"
            )


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
