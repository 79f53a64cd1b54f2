"""Accuracy of a classifier with several label fields: per field, and the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from detseg.classes import LabelField
from detseg.errors import DataError
from detseg.metrics.classification import ClassificationEvaluator, ClassificationMetrics
from detseg.metrics.outputs import to_numpy
from detseg.pr_curve import PrCurve
from detseg.short_text import counted, values
from detseg.structures import FieldPredictions


@dataclass(frozen=True)
class FieldMetrics:
    """Counts of correct and wrong predictions for several label fields.

    Attributes:
        fields: name of the field -> its metrics, over the images that have a label for it.
        unlabelled: name of the field -> number of images without a label for it, which are not evaluated for it.
    """

    fields: dict[str, ClassificationMetrics]
    unlabelled: dict[str, int]

    def __repr__(self) -> str:
        means = {"accuracy": self.accuracy} | {name: metrics.accuracy for name, metrics in self.fields.items()}
        return f"FieldMetrics({values(means)}; {counted(len(self.fields), 'label field')})"

    @property
    def accuracy(self) -> float | None:
        """Mean over the fields that have labelled images; None if there are none."""
        defined = [metrics.accuracy for metrics in self.fields.values() if metrics.accuracy is not None]
        return sum(defined) / len(defined) if defined else None

    def best(self) -> float:
        """Mean accuracy: the number that selects the best checkpoint; 0.0 without labelled images."""
        return self.accuracy or 0.0

    def scalars(self) -> dict[str, float | None]:
        """Scalar metrics by name: ``accuracy`` is the mean, the others end in ``_<field>``."""
        return {"accuracy": self.accuracy} | {
            f"{key}_{name}": value for name, metrics in self.fields.items() for key, value in metrics.scalars().items()
        }

    def to_dict(self) -> dict[str, Any]:
        """All metrics as a JSON-able dict; None where a metric is not defined."""
        return {
            "accuracy": self.accuracy,
            "fields": {
                name: {**metrics.to_dict(), "unlabelled": self.unlabelled[name]}
                for name, metrics in self.fields.items()
            },
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> FieldMetrics:
        """Return the metrics of a metrics.json; see :meth:`to_dict`."""
        fields = content["fields"]
        return cls(
            {name: ClassificationMetrics.from_dict(values) for name, values in fields.items()},
            {name: values["unlabelled"] for name, values in fields.items()},
        )

    def lines(self) -> list[str]:
        """The mean accuracy, then the table of each field."""
        mean = "undefined" if self.accuracy is None else f"{self.accuracy:.3f}"
        lines = [f"mean accuracy of {len(self.fields)} label fields {mean}"]
        for name, metrics in self.fields.items():
            unlabelled = f" ({self.unlabelled[name]} more have no label for it)" if self.unlabelled[name] else ""
            first, *rest = metrics.lines()
            lines += ["", f"{name}: {first}{unlabelled}", *(f"  {line}".rstrip() for line in rest)]
        return lines


class FieldEvaluator:
    """Evaluates one class for each label field of an image, batch by batch; a label of -1 is not evaluated.

    Args:
        fields: the T fields.

    Attributes:
        evaluators: name of the field -> its evaluator.
        unlabelled: name of the field -> number of images without a label for it.
    """

    def __init__(self, fields: Sequence[LabelField]) -> None:
        self.evaluators = {field.name: ClassificationEvaluator(field.class_map) for field in fields}
        self.reset()

    def reset(self) -> None:
        """Remove all predictions."""
        for evaluator in self.evaluators.values():
            evaluator.reset()
        self.unlabelled = dict.fromkeys(self.evaluators, 0)
        self._seen: set[int] = set()

    @property
    def images_seen(self) -> int:
        return len(self._seen)

    @property
    def predictions(self) -> dict[int, FieldPredictions]:
        """Image id -> predictions of the fields for which the image has a label."""
        return {
            image_id: FieldPredictions(
                {
                    name: evaluator.predictions[image_id]
                    for name, evaluator in self.evaluators.items()
                    if image_id in evaluator.predictions
                }
            )
            for image_id in sorted(self._seen)
        }

    @property
    def pr_curves(self) -> list[PrCurve]:
        """Precision and recall of each class of each field, which is named ``<field>=<class>``."""
        return [
            replace(curve, class_name=f"{name}={curve.class_name}")
            for name, evaluator in self.evaluators.items()
            for curve in evaluator.pr_curves
        ]

    def update(self, targets: Sequence[Mapping[str, Any]], outputs: Sequence[FieldPredictions]) -> None:
        """Add a batch.

        Args:
            targets: one dict per image with ``image_id`` and ``class_index`` [T], 0..K-1 of each field or -1.
            outputs: one prediction per image, with the same fields.

        Raises:
            DataError: different fields or classes, or probabilities that are not finite.
        """
        if len(targets) != len(outputs):
            raise DataError(f"{len(targets)} targets but {len(outputs)} outputs; pass one output per image")
        for target, output in zip(targets, outputs, strict=True):
            ground_truth = to_numpy(target["class_index"]).reshape(-1)
            if len(ground_truth) != len(self.evaluators) or list(output.fields) != list(self.evaluators):
                raise DataError(
                    f"image {int(to_numpy(target['image_id']).reshape(-1)[0])}: {len(ground_truth)} labels and "
                    f"predictions for {', '.join(output.fields)}, but the label fields are {', '.join(self.evaluators)}"
                )
            self._add(target["image_id"], ground_truth.tolist(), output)

    def to_bytes(self) -> bytes:
        """All predictions, for the evaluator of another process; see :meth:`add_bytes`."""
        fields = {name: evaluator.to_bytes() for name, evaluator in self.evaluators.items()}
        return msgspec.msgpack.encode((fields, self.unlabelled, sorted(self._seen)))

    def add_bytes(self, content: bytes) -> None:
        """Add the predictions that another process collected with an evaluator of the same fields.

        Raises:
            DataError: as :meth:`ClassificationEvaluator.add_bytes`.
        """
        kind = tuple[dict[str, bytes], dict[str, int], list[int]]
        fields, unlabelled, seen = msgspec.msgpack.decode(content, type=kind)
        for name, evaluator in self.evaluators.items():
            evaluator.add_bytes(fields[name])
            self.unlabelled[name] += unlabelled[name]
        self._seen |= set(seen)

    def compute(self) -> FieldMetrics:
        """Compute the metrics of all predictions so far."""
        fields = {name: evaluator.compute() for name, evaluator in self.evaluators.items()}
        return FieldMetrics(fields, dict(self.unlabelled))

    def _add(self, image_id: Any, ground_truth: list[int], output: FieldPredictions) -> None:
        repeated = int(to_numpy(image_id).reshape(-1)[0]) in self._seen
        self._seen.add(int(to_numpy(image_id).reshape(-1)[0]))
        for (name, evaluator), index in zip(self.evaluators.items(), ground_truth, strict=True):
            if index != -1:
                evaluator.update([{"image_id": image_id, "class_index": index}], [output[name]])
            elif not repeated:
                self.unlabelled[name] += 1
