"""Decide the value range of images with more than 8 bits per channel, from the training images."""

from __future__ import annotations

from collections.abc import Sequence

from detseg.annotations import AnnotationTable
from detseg.errors import DataError
from detseg.pixel_values import checked_range
from detseg.value_range import find_value_range, has_deep_values


def training_value_range(
    train: AnnotationTable, override: Sequence[float] | None = None
) -> tuple[list[float] | None, str]:
    """The value range of a new run and the reason for it; (None, "") if all training images have 8 bits.

    Files that are missing or cannot be read are ignored here; they are errors when they are used.

    Args:
        train: the training split.
        override: ``--value-range``; it is checked and returned.

    Raises:
        DataError: a range of the option range that is not one, or that has no effect.
    """
    paths = train.files()
    if override is not None:
        low, high = checked_range(override, "--value-range") or (0.0, 0.0)
        depths = (depth for depth in map(has_deep_values, paths) if depth is not None)
        if not next(depths, True) and not any(depths):
            raise DataError(
                f"--value-range [{low:g},{high:g}]: it has no effect, because no training image has more than 8 bits "
                "per channel; omit it"
            )
        return [low, high], "option"
    decided = find_value_range(paths, images="training images")
    return (None, "") if decided is None else (list(decided.range), decided.line())
