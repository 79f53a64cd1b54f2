"""Summarize a data set in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.lost_objects import LostObjects
from detseg.annotations.split import class_presence
from detseg.annotations.table import AnnotationTable
from detseg.doctor.class_balance import Coverage, coverage
from detseg.doctor.findings import SEVERITIES, Finding, counts_by_kind, counts_line, kind_lines
from detseg.doctor.memory import MemoryNeed, inspect_memory
from detseg.doctor.table import inspect_table
from detseg.options.defaults import IMAGE_SIZE_ON_CPU
from detseg.preprocess import longer_side
from detseg.short_text import counted
from detseg.value_range import ValueRange

SMALL, MEDIUM = 32**2, 96**2
"""COCO's area limits in square pixels of the original image: small is below the first, large above the second."""

SHOWN = 50
"""Maximum number of lines about findings that are printed, each of one kind; all findings are in ``to_dict``."""


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum of an array."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Spread | None:
        """The spread of an array; None if it is empty."""
        return cls(float(values.min()), float(np.median(values)), float(values.max())) if len(values) else None

    def __str__(self) -> str:
        return f"{self.min:g} to {self.max:g}, median {self.median:g}"


@dataclass(frozen=True)
class ClassCount:
    """One class: number of instances, crowds included, and of images with a training instance."""

    name: str
    instances: int
    images: int


@dataclass(frozen=True)
class FieldCount:
    """One of several label fields: number of classes, and of images with and without a label for it."""

    name: str
    classes: int
    labelled: int
    unlabelled: int


@dataclass(frozen=True)
class KeypointCount:
    """One keypoint: number of training instances in which it is labelled, and of these those in which it is visible."""

    name: str
    labelled: int
    visible: int


@dataclass(frozen=True)
class Summary:
    """Contents and problems of a data set.

    Attributes:
        source: path and format of the data.
        images: number of images; ``splits``: number of images in each split of the source, "" for none.
        negatives: images without a class, or without training instances.
        instances, crowds, ignored: numbers of instances; ``crowds`` and ``ignored`` are included in ``instances``.
        has_masks: whether every training instance has a mask; ``outlined``: number of instances with a mask.
        classes: in the order of the labels; with several label fields those of each, as ``colour=red``.
        label_fields: the fields if images have several labels; else empty.
        width, height: of the upright images in pixels.
        objects_per_image: instances per image, crowds included.
        small, medium, large: instances by COCO's area limits of 32 x 32 and 96 x 96 pixels.
        notes: what the reader repaired or skipped, one line per kind.
        findings: problems and suspicious values, the worst first.
        values: the value range of the images with more than 8 bits per channel; None without such images.
        lost: objects that could not be used, and the images left out because they lost all of theirs.
        keypoints: in the order of the source; empty for data without keypoints.
        with_keypoints: number of training instances with a labelled keypoint.
        keypoint_pairs: names of the keypoints that a horizontal flip swaps.
        coverage: names of the images with boxes and keypoints, boxes only, keypoints only, neither; empty for data
            without keypoints.
        memory: what loading the images needs; None without images.
    """

    source: str
    images: int
    splits: dict[str, int]
    negatives: int
    instances: int
    crowds: int
    ignored: int
    has_masks: bool
    outlined: int
    classes: tuple[ClassCount, ...]
    label_fields: tuple[FieldCount, ...]
    width: Spread | None
    height: Spread | None
    objects_per_image: Spread | None
    small: int
    medium: int
    large: int
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    values: ValueRange | None = None
    lost: LostObjects = LostObjects()
    keypoints: tuple[KeypointCount, ...] = ()
    with_keypoints: int = 0
    keypoint_pairs: tuple[tuple[str, str], ...] = ()
    coverage: Coverage = field(default_factory=dict)
    memory: MemoryNeed | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings for which ``train`` refuses the data."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The errors and warnings."""
        return tuple(finding for finding in self.findings if finding.severity != "note")

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON-serializable values."""
        findings = [finding.to_dict() for finding in self.findings]
        return {**asdict(self), "findings": findings, "kinds": counts_by_kind(self.findings)}

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        splits = ", ".join(f"{count} {split or 'without a split'}" for split, count in self.splits.items())
        lines = [
            f"data: {self.source}",
            f"images: {self.images}"
            + (f" ({splits})" if any(self.splits) else "")
            + (f", {self.negatives} without instances or classes" if self.negatives else ""),
        ]
        if self.width and self.height:
            lines.append(f"image size in pixels: width {self.width}; height {self.height}")
        if self.values:
            lines.append(f"pixel values: {self.values.line()}")
        if self.instances and self.objects_per_image:
            special = [
                f"{count} {kind}" for count, kind in ((self.crowds, "crowds"), (self.ignored, "ignored")) if count
            ]
            lines += [
                f"instances: {self.instances}, {self._masks()}" + (f" ({', '.join(special)})" if special else ""),
                f"instances per image: {self.objects_per_image}",
                f"instance size: {self.small} small, {self.medium} medium, {self.large} large "
                "(limits of COCO: 32 x 32 and 96 x 96 pixels)",
            ]
        lines += [*self._class_lines(), *self._keypoint_lines()]
        lines += [self.lost.line()] if self.lost.objects else []
        lines += [f"note: {line}" for line in self.notes]
        lines += [self.memory.line()] if self.memory else []
        kinds = kind_lines(self.findings)
        lines += [f"problems: {counts_line(self.findings) if self.problems else 'none found'}", *kinds[:SHOWN]]
        if len(kinds) > SHOWN:
            lines.append(f"{len(kinds) - SHOWN} more kinds, all findings are listed in summary.json")
        return lines

    def _masks(self) -> str:
        if self.has_masks or not self.outlined:
            return "with masks" if self.has_masks else "without masks"
        return f"{self.outlined} of them with masks"

    def _class_lines(self) -> list[str]:
        width = max([len("class"), *(len(count.name) for count in self.classes)])
        with_instances = self.instances > 0
        head = f"  {'class':{width}}" + (f"{'instances':>10}" if with_instances else "") + f"{'images':>10}"
        rows = [
            f"  {count.name:{width}}" + (f"{count.instances:>10}" if with_instances else "") + f"{count.images:>10}"
            for count in self.classes
        ]
        fields = [
            f"label field {field.name}: {field.classes} classes, {field.labelled} images"
            + (f", {field.unlabelled} without a label for it" if field.unlabelled else "")
            for field in self.label_fields
        ]
        return [*fields, f"classes: {len(self.classes)}", head, *rows]

    def _keypoint_lines(self) -> list[str]:
        if not self.keypoints:
            return []
        width = max([len("keypoint"), *(len(count.name) for count in self.keypoints)])
        pairs = ", ".join(f"{left} - {right}" for left, right in self.keypoint_pairs)
        return [
            f"keypoints: {len(self.keypoints)}, labelled in {counted(self.with_keypoints, 'training instance')}",
            f"  swapped by a horizontal flip: {pairs or 'none (name pairs left_x and right_x)'}",
            f"  {'keypoint':{width}}{'labelled':>10}{'visible':>10}",
            *(f"  {count.name:{width}}{count.labelled:>10}{count.visible:>10}" for count in self.keypoints),
            "images: " + ", ".join(f"{len(names)} with {kind}" for kind, names in self.coverage.items() if names),
        ]


def summary(
    table: AnnotationTable,
    findings: Sequence[Finding] = (),
    values: ValueRange | None = None,
    *,
    image_size: int | None = None,
) -> Summary:
    """Summarize ``table``.

    Args:
        table: any table.
        findings: of checks that read files (``inspect_images``); those of ``inspect_table`` are added here.
        values: of ``image_values``.
        image_size: input size for what is too small at it, and for the memory; None for the default of a CPU.
    """
    size = image_size or int(IMAGE_SIZE_ON_CPU.value)
    need = MemoryNeed.of(table, (size, longer_side(size)))
    all_findings = [*findings, *inspect_table(table, image_size), *inspect_memory(need)]
    rows = table.instance_rows()
    labels, areas = table.label[rows], table.area[rows]
    presence = class_presence(table)
    counts = np.bincount(labels, minlength=1 + len(table.class_map))
    upright = _sizes(table)
    visibility, schema = _visibility(table), None if table.keypoints is None else table.keypoint_schema
    names = () if schema is None else schema.names
    splits = {name: table.split.tolist().count(name) for name in ("train", "val", "test", "")}
    return Summary(
        source=table.source,
        images=len(table),
        splits={name: count for name, count in splits.items() if count},
        negatives=int(presence[:, 0].sum()),
        instances=len(rows),
        crowds=int(table.iscrowd[rows].sum()),
        ignored=int(table.ignore[rows].sum()),
        has_masks=table.has_masks,
        outlined=int(table.segmentation.present()[rows].sum()),
        classes=tuple(
            ClassCount(name, int(counts[label]), int(presence[:, label].sum()))
            for label, name in enumerate(table.class_map.names, start=1)
        ),
        label_fields=tuple(
            FieldCount(field.name, len(field), int((column >= 0).sum()), int((column < 0).sum()))
            for field, column in zip(table.label_fields, table.class_index.T, strict=False)
        ),
        width=Spread.of(upright[:, 1]),
        height=Spread.of(upright[:, 0]),
        objects_per_image=Spread.of(table.instances_per_image()),
        small=int((areas < SMALL).sum()),
        medium=int(((areas >= SMALL) & (areas <= MEDIUM)).sum()),
        large=int((areas > MEDIUM).sum()),
        notes=tuple(table.notes.lines()),
        findings=tuple(sorted(all_findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        values=values,
        lost=table.lost,
        keypoints=tuple(
            KeypointCount(name, int((column > 0).sum()), int((column == 2).sum()))
            for name, column in zip(names, visibility.T, strict=True)
        ),
        with_keypoints=int((visibility > 0).any(axis=1).sum()),
        keypoint_pairs=() if schema is None else tuple((names[a], names[b]) for a, b in schema.swaps),
        coverage=coverage(table),
        memory=need,
    )


def _visibility(table: AnnotationTable) -> npt.NDArray[np.float64]:
    """float64 [N, P]: visibility 0..2 of the keypoints of each training instance; P is 0 without keypoints."""
    rows = table.trained_rows()
    return np.zeros((len(rows), 0)) if table.keypoints is None else table.keypoints[rows, :, 2]


def _sizes(table: AnnotationTable) -> npt.NDArray[np.int64]:
    """int64 [I, 2]: height and width of the upright images."""
    stored = np.stack([table.height, table.width], axis=1).astype(np.int64)
    return np.where((table.orientation >= 5)[:, None], stored[:, ::-1], stored)
