"""Hold COCO metrics, and format them for JSON, the terminal and the choice of the best checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.metrics.matching import limits
from detseg.short_text import counted, values

Stats = dict[str, float | None]

TITLES = {
    "bbox": "boxes (bbox)",
    "segm": "masks (segm)",
    "keypoints": "keypoints (OKS)",
}
SHORT_TITLES = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}


@dataclass(frozen=True)
class CocoEvalStats:
    """The metrics of one IoU type, as pycocotools' ``COCOeval`` has them after ``summarize()``.

    Attributes:
        stats: float64 [12] (keypoints: [10]) in pycocotools' order, -1 where there is no ground truth: AP, AP50, AP75,
            AP small, medium, large, AR with 1, 10 and 100 detections, AR small, medium, large; for keypoints AP, AP50,
            AP75, AP medium, large, AR, AR50, AR75, AR medium, large.
    """

    stats: npt.NDArray[np.float64]


@dataclass(frozen=True)
class CocoMetrics:
    """COCO metrics of one set of predictions.

    Attributes:
        stats: by IoU type ("bbox", "segm", "keypoints"), COCO metrics in [0, 1] by name: AP (mean over IoU 0.50 to
            0.95), AP50, AP75, AP_small, AP_medium, AP_large, AR1, AR10, AR100, AR_small, AR_medium, AR_large; for
            keypoints AR, AR50, AR75 and no small sizes. None where there is no ground truth.
        per_class: AP and AP50 by IoU type and class name.
        objects: number of ground truth objects by class name, without crowds.
        images: number of images of the ground truth.
        max_dets: by IoU type, the maximum number of detections per class and image.
        notes: remarks on the numbers, for example skipped predictions.
    """

    stats: dict[str, Stats]
    per_class: dict[str, dict[str, Stats]]
    objects: dict[str, int]
    images: int
    max_dets: dict[str, int]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = [
            f"{SHORT_TITLES[iou_type]} {values({name: stats[name] for name in ('AP', 'AP50')}) or 'AP undefined'}"
            for iou_type, stats in self.stats.items()
        ]
        objects = counted(sum(self.objects.values()), "object")
        counts = f"{counted(self.images, 'image')}, {objects}, {counted(len(self.objects), 'class', 'classes')}"
        return f"CocoMetrics({'; '.join([*parts, counts])})"

    @property
    def coco_eval(self) -> dict[str, CocoEvalStats]:
        """``coco_eval["bbox"].stats``, for scripts that continue from torchvision's ``evaluate``.

        With a limit of detections other than COCO's (see ``max_dets``) all metrics are for that limit.
        """
        return {iou_type: CocoEvalStats(self._stats_array(iou_type)) for iou_type in self.stats}

    def _stats_array(self, iou_type: str) -> npt.NDArray[np.float64]:
        if iou_type == "keypoints":
            sizes, recalls = ["medium", "large"], ["AR", "AR50", "AR75"]
        else:
            sizes = ["small", "medium", "large"]
            recalls = [f"AR{top}" for top in limits(iou_type, self.max_dets[iou_type])]
        names = ["AP", "AP50", "AP75", *(f"AP_{size}" for size in sizes), *recalls, *(f"AR_{size}" for size in sizes)]
        ordered = [self.stats[iou_type][name] for name in names]
        return np.array([-1.0 if value is None else value for value in ordered])

    def best(self) -> float:
        """Mask AP if there is one, else OKS AP, else box AP: the number that selects the best checkpoint, in [0, 1].

        0.0 where it is not defined because there is no ground truth.
        """
        name = next(name for name in ("segm", "keypoints", "bbox") if name in self.stats)
        return self.stats[name]["AP"] or 0.0

    def scalars(self) -> Stats:
        """All metrics in one flat dict: ``bbox_AP``, ``segm_AP50``, ..."""
        return {f"{iou_type}_{name}": value for iou_type, stats in self.stats.items() for name, value in stats.items()}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: ``{"bbox": {"AP": ..., "per_class": {"cat": {"AP": ..., "AP50": ..., "objects": 12}}}, ...}``."""
        by_iou_type: dict[str, Any] = {
            iou_type: {
                **stats,
                "max_dets": self.max_dets[iou_type],
                "per_class": {
                    name: {**scores, "objects": self.objects[name]} for name, scores in self.per_class[iou_type].items()
                },
            }
            for iou_type, stats in self.stats.items()
        }
        return {**by_iou_type, "images": self.images, "objects": sum(self.objects.values()), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> CocoMetrics:
        """Return the metrics of a metrics.json; see :meth:`to_dict`."""
        by_iou_type = {name: content[name] for name in TITLES if name in content}
        classes = {name: values["per_class"] for name, values in by_iou_type.items()}
        return cls(
            stats={
                name: {key: value for key, value in values.items() if key not in ("max_dets", "per_class")}
                for name, values in by_iou_type.items()
            },
            per_class={
                name: {key: {"AP": scores["AP"], "AP50": scores["AP50"]} for key, scores in values.items()}
                for name, values in classes.items()
            },
            objects={name: scores["objects"] for values in classes.values() for name, scores in values.items()},
            images=content["images"],
            max_dets={name: values["max_dets"] for name, values in by_iou_type.items()},
            notes=tuple(content["notes"]),
        )

    def lines(self) -> list[str]:
        """AP and AP50 of each IoU type in one line, an aligned table of classes, and notes.

        In the table the AP of a class without objects is empty.
        """
        numbers = [
            f"{SHORT_TITLES[iou_type]} {name} {_cell(stats[name]) or 'undefined'}"
            for iou_type, stats in self.stats.items()
            for name in ("AP", "AP50")
        ]
        objects = counted(sum(self.objects.values()), "object")
        lines = [f"{', '.join(numbers)} ({counted(self.images, 'image')}, {objects})"]
        if self.objects:
            lines += ["", *self._class_table()]
        return lines + [f"note: {note}" for note in self.notes]

    def coco_lines(self) -> list[str]:
        """The lines of pycocotools' ``summarize()``, twelve for each IoU type (keypoints: ten)."""
        lines = []
        for iou_type, stats in self.stats.items():
            lines.append(f"{TITLES[iou_type]}: {self.images} images, {sum(self.objects.values())} objects")
            lines += [_summary_line(name, value, self.max_dets[iou_type]) for name, value in stats.items()]
        return lines

    def _class_table(self) -> list[str]:
        iou_types = list(self.stats)
        width = max(len("class"), *(len(name) for name in self.objects))
        prefixes = [f"{SHORT_TITLES[iou_type]} " if len(iou_types) > 1 else "" for iou_type in iou_types]
        titles = [f"{prefix}{name}" for prefix in prefixes for name in ("AP", "AP50")]
        lines = [f"{'class':<{width}}  objects" + "".join(f"  {title:>9}" for title in titles)]
        for name, count in self.objects.items():
            values = [self.per_class[iou_type][name][column] for iou_type in iou_types for column in ("AP", "AP50")]
            cells = "".join(f"  {_cell(value):>{max(9, len(t))}}" for value, t in zip(values, titles, strict=True))
            lines.append(f"{name:<{width}}  {count:>7}{cells}".rstrip())
        return lines


def _summary_line(name: str, value: float | None, max_dets: int) -> str:
    measure, size = name[:2], [*name.split("_"), "all"][1]
    number = name.split("_")[0][2:]
    # The number in AR1, AR10, AR100 is a limit of detections; in AP50, AP75, AR50, AR75 (keypoints) it is an IoU.
    is_limit = measure == "AR" and number and number not in ("50", "75")
    overlap = f"0.{number}" if number and not is_limit else "0.50:0.95"
    title = "Average Precision  (AP)" if measure == "AP" else "Average Recall     (AR)"
    top = number if is_limit else str(max_dets)
    return f" {title} @[ IoU={overlap:<9} | area={size:>6} | maxDets={top:>3} ] = {_cell(value) or 'no such objects'}"


def coco_lines(metrics: object) -> list[str]:
    """COCO's lines of any metrics, after an empty line; none if they are not COCO metrics."""
    return ["", *metrics.coco_lines()] if isinstance(metrics, CocoMetrics) else []


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
