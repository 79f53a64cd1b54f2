"""Report images that cannot be used, that show nothing, and that differ from the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detseg.annotations.groups import file_name
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import LEAVE_OUT_IMAGE, Finding, Severity
from detseg.doctor.image_facts import ImageFacts, digests, equal_files, image_facts
from detseg.doctor.similar_images import similar_images
from detseg.doctor.splits import images_in_two_splits
from detseg.errors import DataError
from detseg.pixel_values import Range, checked_range
from detseg.value_range import ValueRange, find_value_range

FEW = 0.1
"""Grey images among colour ones, or colour ones among grey ones, are reported below this share: another camera."""
ENOUGH = 10
"""Images from which a share of them means something."""


def image_values(table: AnnotationTable, override: Sequence[float] | None = None) -> ValueRange | None:
    """The value range of the images with more than 8 bits per channel: of the training split if the source has one, as
    in training, else of all images; or the ``override`` range. None without such images.

    Raises:
        DataError: ``override`` is not a range, or no image has more than 8 bits.
    """
    value_range = checked_range(override, "--value-range")
    train = table.subset(np.flatnonzero(table.split == "train"))
    values = find_value_range(train.files(), images="training images", override=value_range) if len(train) else None
    values = values or find_value_range(table.files(), override=value_range)
    if values is None and value_range is not None:
        raise DataError(
            f"--value-range {override}: it has no effect, no image has more than 8 bits per channel; omit it"
        )
    return values


def inspect_images(table: AnnotationTable, value_range: Range | None = None) -> list[Finding]:
    """Decode all images in full, with a progress bar on a terminal, and report the problems, in the order of the table.

    Never raises for a bad image. Images without a path of their own (see ``AnnotationTable.has_path``) are not
    checked. A file of several records is decoded once.

    Args:
        value_range: of :func:`image_values`.
    """
    facts = image_facts(table, value_range)
    return [
        *(finding for each in facts for finding in _of_file(table, each)),
        *_other_channels(table, facts),
        *_equal_files(table, facts),
        *images_in_two_splits(table, digests(facts)),
        *similar_images(table, facts),
    ]


def _of_file(table: AnnotationTable, facts: ImageFacts) -> list[Finding]:
    name = file_name(table, facts.image)

    def finding(severity: Severity, kind: str, value: str, remedy: str, fix: str = "") -> Finding:
        return Finding(severity, kind, name, value, remedy, fix=fix, image=facts.image)

    if facts.is_missing:
        return [
            finding("error", "missing image", facts.error, "restore it, or remove its annotations", LEAVE_OUT_IMAGE)
        ]
    if facts.error:
        text = Finding.of_text("error", "corrupt image", name, facts.error)
        remedy = text.remedy or "replace the file, or remove its annotations"
        return [finding("error", text.kind, text.value.removeprefix(f"{name}: "), remedy, LEAVE_OUT_IMAGE)]
    findings = []
    if facts.damage:
        text = Finding.of_text("warning", "damaged image", name, facts.damage)
        findings.append(
            finding("warning", text.kind, text.value.removeprefix(f"{name}: "), text.remedy, LEAVE_OUT_IMAGE)
        )
    stored_hw = int(table.height[facts.image]), int(table.width[facts.image])
    if facts.size_hw != stored_hw and not facts.damage:
        value = (
            f"the file is {facts.size_hw[1]} x {facts.size_hw[0]} pixels (width x height), its annotations specify "
            f"{stored_hw[1]} x {stored_hw[0]}"
        )
        findings.append(
            finding("warning", "wrong size", value, "correct them, or restore the image that was annotated")
        )
    if facts.is_outside:
        value = "most of its values are outside the value range, so they become black or white"
        findings.append(finding("warning", "outside the value range", value, "correct --value-range"))
    elif facts.is_constant:
        remedy = "restore it, or remove it with its annotations"
        findings.append(finding("warning", "constant image", "all pixels have the same value", remedy))
    elif facts.is_black:
        value = "nearly black (99.9 % of the pixels are at most 8 of 255)"
        remedy = "restore it, or check --value-range if it has more than 8 bits"
        findings.append(finding("warning", "nearly black image", value, remedy))
    return findings


def _other_channels(table: AnnotationTable, facts: Sequence[ImageFacts]) -> list[Finding]:
    """Grey images among colour ones, or the reverse: taken by another camera, or converted by mistake. Among photos of
    many sizes, and so of many cameras, that is usual, and only noted."""
    decoded = [each for each in facts if not each.error and not each.is_constant and not each.is_black]
    grey = [each for each in decoded if each.is_grey]
    if len(decoded) < ENOUGH:
        return []
    one_camera = len({frozenset(each.size_hw) for each in decoded}) == 1
    for few, kind, others in (
        (grey, "grey image among colour images", "colour"),
        ([each for each in decoded if not each.is_grey], "colour image among grey images", "grey"),
    ):
        if 0 < len(few) < FEW * len(decoded):
            value = f"{len(decoded) - len(few)} of {len(decoded)} images are {others}, this one is not"
            remedy = "check that it belongs to them, and that it is not a converted copy"
            severity: Severity = "warning" if one_camera else "note"
            return [
                Finding(severity, kind, file_name(table, each.image), value, remedy, image=each.image) for each in few
            ]
    return []


def _equal_files(table: AnnotationTable, facts: Sequence[ImageFacts]) -> list[Finding]:
    """Files with the same bytes in one split; those in two splits are found by ``images_in_two_splits``."""
    findings = []
    for group in equal_files(facts):
        first_of: dict[str, ImageFacts] = {}
        for each in group:
            first = first_of.setdefault(str(table.split[each.image]), each)
            if first is not each:
                value = f"the same file as {file_name(table, first.image)}"
                remedy = "remove one of them: it counts twice in training"
                findings.append(
                    Finding("warning", "repeated image", file_name(table, each.image), value, remedy, image=each.image)
                )
    return findings
