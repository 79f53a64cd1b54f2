"""Find and remove what an earlier ``predict`` wrote into its output folder, and refuse folders of others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detseg.annotations.own_files import (
    DRAWINGS,
    PREDICTED_IMAGES,
    PREDICTION_LINES,
    PREDICTIONS,
    is_image_list,
    is_run,
)
from detseg.errors import DataError
from detseg.inference.output_paths import files_of, remove_file
from detseg.inference.prediction_files import PARTS, read_lines
from detseg.short_text import counted

WHOLE_FILES = ("predictions.csv", "predicted-yolo/data.yaml", "predicted-cvat/annotations.xml")
"""Outputs that are one file for all images."""


def check_output(folder: Path) -> None:
    """Check that the files of ``predict`` replace no others.

    Raises:
        DataError: the folder is a run, or has an ``images.json`` that ``predict`` did not write.
    """
    if folder.is_dir() and is_run(os.listdir(folder)):  # noqa: PTH208
        raise DataError(
            f"--output {folder} is the folder of a run, whose predictions.json would be replaced; give another folder"
        )
    images = folder / PREDICTED_IMAGES
    if images.is_file() and not is_image_list(images):
        raise DataError(f"{images} was not written by predict and would be replaced; give another --output")


def remove_earlier(folder: Path) -> list[str]:
    """Remove what an earlier ``predict`` wrote into the folder: only the files that follow from its results.

    Returns:
        Lines that say so.
    """
    lines, images = folder / PREDICTION_LINES, folder / PREDICTED_IMAGES
    for part in folder.glob(PARTS):
        part.unlink()
    if not lines.is_file() and not images.is_file():
        return []
    earlier: Iterator[dict[str, Any]] = ({"file_name": name} for name in _earlier_names(images))
    messages: list[str] = []
    if lines.is_file():
        earlier = (json.loads(line) for line in read_lines(folder))
        if not images.is_file():
            count = counted(sum(1 for _ in read_lines(folder)), "image")
            messages.append(f"an earlier predict into {folder} was interrupted after {count}; this one starts again")
    paths = (path for item in earlier for path in files_of(folder, str(item["file_name"]), item.get("results", ())))
    removed = [path.is_relative_to(folder / DRAWINGS) for path in paths if remove_file(folder, path)]
    drawings, others = sum(removed), len(removed) - sum(removed)
    others += sum(remove_file(folder, folder / name) for name in WHOLE_FILES)
    for path in (folder / PREDICTIONS, images, lines):
        path.unlink(missing_ok=True)
    if drawings:
        messages.append(f"removed {counted(drawings, 'drawing')} of an earlier predict from {folder / DRAWINGS}")
    if others:
        messages.append(f"removed {counted(others, 'other file')} of an earlier predict from {folder}")
    return messages


def _earlier_names(images: Path) -> list[str]:
    """The file names in an ``images.json``; none if it is not one of ``predict``."""
    try:
        return [str(image["file_name"]) for image in json.loads(images.read_bytes())["images"]]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return []
