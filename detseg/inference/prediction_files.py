"""The files of ``predict``: written image by image, so that memory does not depend on the number of images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from detseg.annotations.own_files import (
    PREDICTED_IMAGES,
    PREDICTION_LINES,
    PREDICTIONS,
)
from detseg.runtime.files import atomic_write, write_errors

PARTS = ".predictions-*.jsonl"
"""Names of the lines of several processes."""

_RESULTS = b', "results": ['


class PredictionLines:
    """Writes ``predictions.jsonl``, a line per image. Whatever stops the process, all lines that are there are whole
    (but the last one, if the machine itself stops).

    Args:
        folder: output folder; its earlier ``predictions.jsonl`` is replaced.
        rank: of one of several processes, which writes a part; None for the whole.

    Attributes:
        images: number of lines.
        failures: number of images without results.
    """

    def __init__(self, folder: Path, rank: int | None = None) -> None:
        self._path = folder / PREDICTION_LINES if rank is None else part_path(folder, rank)
        self._file = self._path.open("wb", buffering=0)
        self.images = self.failures = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def results(
        self,
        image_id: int,
        name: str,
        results: Sequence[dict[str, Any]],
        size_hw: tuple[int, int] | None = None,
        place: Mapping[str, Any] | None = None,
    ) -> bool:
        """Write the results of an image. Returns False, and writes nothing, if a number is not finite.

        Args:
            size_hw: height and width of the upright image.
            place: more keys of the line: of a frame, its number and time.

        Raises:
            WriteError: the disk is full.
        """
        values = [{"image_id": image_id, "file_name": name, **result} for result in results]
        size = {} if size_hw is None else {"width": size_hw[1], "height": size_hw[0]}
        try:
            line = _json({"image_id": image_id, "file_name": name, **size, **(place or {}), "results": values})
        except ValueError:
            return False
        self._write(line)
        return True

    def failure(self, image_id: int, name: str, reason: str, place: Mapping[str, Any] | None = None) -> None:
        """Write why an image has no results."""
        self._write(_json({"image_id": image_id, "file_name": name, **(place or {}), "error": reason}))
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
        self.images += 1


def read_lines(folder: Path) -> Iterator[bytes]:
    """The whole lines of ``predictions.jsonl``, one after the other."""
    with (folder / PREDICTION_LINES).open("rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))


def read_results(folder: Path) -> Iterator[dict[str, Any]]:
    """What ``predictions.jsonl`` says about each image that has results, one after the other."""
    return (json.loads(line) for line in read_lines(folder) if _RESULTS in line)


def read_failures(folder: Path) -> Iterator[str]:
    """``file: reason`` of each image without results."""
    return (json.loads(line)["error"] for line in read_lines(folder) if _RESULTS not in line)


def write_predictions(folder: Path) -> None:
    """Write ``predictions.json`` from the lines, atomically: a list of all results, one per line."""
    with atomic_write(folder / PREDICTIONS) as file:
        file.write(b"[\n")
        separator = b""
        for line in read_results(folder):
            for result in line["results"]:
                file.write(separator + _json(result))
                separator = b",\n"
        file.write(b"\n]\n")


def write_images(folder: Path, categories: Sequence[dict[str, Any]]) -> None:
    """Write ``images.json`` from the lines, atomically: the images with their ids from 1 and their sizes, the
    categories, and what failed."""
    with atomic_write(folder / PREDICTED_IMAGES) as file:
        file.write(b'{\n "images": [')
        for number, line in enumerate(read_lines(folder)):
            image = json.loads(line)
            size = {key: image[key] for key in ("width", "height") if key in image}
            file.write(b",\n  " if number else b"\n  ")
            file.write(_json({"id": image["image_id"], "file_name": image["file_name"], **size}))
        file.write(b'\n ],\n "categories": ' + _json(list(categories)) + b',\n "failed": [')
        for number, message in enumerate(read_failures(folder)):
            file.write((b",\n  " if number else b"\n  ") + _json(message))
        file.write(b"\n ]\n}\n")


def part_path(folder: Path, rank: int) -> Path:
    """The lines of one of several processes."""
    return folder / f".predictions-{rank}.jsonl"


def join_parts(folder: Path, world: int, batch_size: int) -> int:
    """Write ``predictions.jsonl`` from the parts of ``world`` processes, of which each has every ``world``-th batch of
    ``batch_size`` images; remove the parts. Returns the number of images without results."""
    failures = 0
    with ExitStack() as stack, atomic_write(folder / PREDICTION_LINES) as whole:
        parts = [stack.enter_context(part_path(folder, rank).open("rb")) for rank in range(world)]
        part = 0
        while lines := list(islice(parts[part % world], batch_size)):
            whole.writelines(lines)
            failures += sum(_RESULTS not in line for line in lines)
            part += 1
    for rank in range(world):
        part_path(folder, rank).unlink()
    return failures


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
