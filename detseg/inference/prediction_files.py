"""The files of ``predict``: written image by image, so that memory does not depend on the number of images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from detseg.annotations.listing import is_image, is_inside
from detseg.annotations.own_files import (
    DRAWING_SUFFIX,
    DRAWINGS,
    PREDICTED_IMAGES,
    PREDICTION_LINES,
    PREDICTIONS,
    is_drawing,
    is_image_list,
    is_run,
)
from detseg.errors import DataError
from detseg.runtime.files import atomic_write, write_errors
from detseg.short_text import counted

LONGEST_NAME = 236
"""Bytes of the longest name of a drawing: file systems allow 255, and its temporary file has 14 more."""

_RESULTS = b', "results": ['


class PredictionLines:
    """Writes ``predictions.jsonl``, a line per image. Whatever stops the process, all lines that are there are whole
    (but the last one, if the machine itself stops).

    Args:
        folder: output folder; its earlier ``predictions.jsonl`` is replaced.

    Attributes:
        failures: number of images without results.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PREDICTION_LINES
        self._file = self._path.open("wb", buffering=0)
        self.failures = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def results(self, image_id: int, name: str, results: Sequence[dict[str, Any]]) -> bool:
        """Write the results of an image. Returns False, and writes nothing, if a number is not finite.

        Raises:
            WriteError: the disk is full.
        """
        values = [{"image_id": image_id, "file_name": name, **result} for result in results]
        try:
            line = _json({"image_id": image_id, "file_name": name, "results": values})
        except ValueError:
            return False
        self._write(line)
        return True

    def failure(self, image_id: int, name: str, reason: str) -> None:
        """Write why an image has no results."""
        self._write(_json({"image_id": image_id, "file_name": name, "error": reason}))
        self.failures += 1

    def _write(self, line: bytes) -> None:
        left, start = memoryview(line + b"\n"), self._file.tell()
        with write_errors(self._path, len(left)):
            try:
                while left:
                    left = left[self._file.write(left) :]
            except BaseException:
                self._file.truncate(start)
                raise


def read_lines(folder: Path) -> Iterator[bytes]:
    """The whole lines of ``predictions.jsonl``, one after the other."""
    with (folder / PREDICTION_LINES).open("rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))


def read_failures(folder: Path) -> Iterator[str]:
    """``file: reason`` of each image without results."""
    return (json.loads(line)["error"] for line in read_lines(folder) if _RESULTS not in line)


def write_predictions(folder: Path) -> None:
    """Write ``predictions.json`` from the lines, atomically: a list of all results, one per line."""
    with atomic_write(folder / PREDICTIONS) as file:
        file.write(b"[\n")
        separator = b""
        for line in read_lines(folder):
            for result in json.loads(line)["results"] if _RESULTS in line else ():
                file.write(separator + _json(result))
                separator = b",\n"
        file.write(b"\n]\n")


def write_images(folder: Path, names: Sequence[str], categories: Sequence[dict[str, Any]]) -> None:
    """Write ``images.json``, atomically: the images with their ids from 1, the categories, and what failed."""
    with atomic_write(folder / PREDICTED_IMAGES) as file:
        file.write(b'{\n "images": [')
        for number, name in enumerate(names, start=1):
            file.write(b",\n  " if number > 1 else b"\n  ")
            file.write(_json({"id": number, "file_name": name}))
        file.write(b'\n ],\n "categories": ' + _json(list(categories)) + b',\n "failed": [')
        for number, message in enumerate(read_failures(folder)):
            file.write((b",\n  " if number else b"\n  ") + _json(message))
        file.write(b"\n ]\n}\n")


def drawing_path(folder: Path, name: str) -> Path:
    """Where the drawing of an image is: ``images/<name>.jpg``; a name that is too long for that is shortened, and a
    checksum of it keeps it distinct."""
    path = PurePosixPath(name)
    last = path.name
    if len(last.encode()) + len(DRAWING_SUFFIX) > LONGEST_NAME:
        end = f"-{sha256(last.encode()).hexdigest()[:16]}{path.suffix if is_image(last) else ''}"
        kept = last.encode()[: LONGEST_NAME - len(DRAWING_SUFFIX) - len(end)]
        last = kept.decode(errors="ignore") + end
    return folder / DRAWINGS / path.parent / f"{last}{DRAWING_SUFFIX}"


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
    """Remove the results and drawings that an earlier ``predict`` wrote into the folder: only files that it lists.

    Returns:
        Lines that say so.
    """
    lines, images = folder / PREDICTION_LINES, folder / PREDICTED_IMAGES
    if not lines.is_file() and not images.is_file():
        return []
    names: Iterator[str] = iter(_earlier_names(images))
    messages: list[str] = []
    if lines.is_file():
        names = (json.loads(line)["file_name"] for line in read_lines(folder))
        if not (folder / PREDICTIONS).is_file():
            count = counted(sum(1 for _ in read_lines(folder)), "image")
            messages.append(f"an earlier predict into {folder} was interrupted after {count}; this one starts again")
    removed = sum(_remove_drawing(folder, name) for name in names)
    for path in (folder / PREDICTIONS, images, lines):
        path.unlink(missing_ok=True)
    if removed:
        messages.append(f"removed {counted(removed, 'drawing')} of an earlier predict from {folder / DRAWINGS}")
    return messages


def _remove_drawing(folder: Path, name: str) -> bool:
    """Remove the drawing of an image, and its folder if it is empty then; whether there was one."""
    path, top = drawing_path(folder, name), os.path.realpath(folder / DRAWINGS)
    is_own = is_drawing(path.name) and is_inside(os.path.realpath(path.parent), top)
    if not is_own or not (path.is_file() or path.is_symlink()):
        return False
    path.unlink()
    while path.parent != folder and not any(path.parent.iterdir()):
        path = path.parent
        path.rmdir()
    return True


def _earlier_names(images: Path) -> list[str]:
    """The file names in an ``images.json``; none if it is not one of ``predict``."""
    try:
        return [str(image["file_name"]) for image in json.loads(images.read_bytes())["images"]]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return []


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
