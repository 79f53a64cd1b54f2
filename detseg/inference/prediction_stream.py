"""Predict many image files one after the other: threads decode the next images while the network runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

from detseg.inference.predictor import LoadedImage
from detseg.runtime.machine import available_cores
from detseg.structures import ClassPrediction, FieldPredictions, Prediction

AnyPrediction = Prediction | ClassPrediction | FieldPredictions

FAILURES = (ValueError, OSError, MemoryError)
"""Errors that cost one image, not the command."""

MOST_THREADS = 8
"""Default limit of the threads that decode: more files at once only wait for the disk."""


class Model(Protocol):
    """What is needed of a ``Predictor``."""

    def load(self, image: Path, /) -> LoadedImage: ...

    def run(self, images: Sequence[LoadedImage], /) -> list[AnyPrediction]: ...


@dataclass(frozen=True)
class ImageFile:
    """One image to predict.

    Attributes:
        image_id: its number in the inputs, from 1.
        path: of the file.
        name: in the results.
    """

    image_id: int
    path: Path
    name: str


@dataclass(frozen=True)
class PredictedImage:
    """An image with its prediction, or with the reason why there is none.

    Attributes:
        file: what was predicted.
        size_hw: height and width of the upright image; (0, 0) if it could not be read.
        prediction: None if it failed.
        error: None if it did not.
    """

    file: ImageFile
    size_hw: tuple[int, int] = (0, 0)
    prediction: AnyPrediction | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Share:
    """The part of the images that one of several processes predicts: every ``world``-th batch, from ``rank`` on."""

    rank: int = 0
    world: int = 1


def default_threads() -> int:
    """Threads that decode: as many as cores."""
    return min(MOST_THREADS, available_cores())


def predicted_images(
    files: Iterable[ImageFile], predictor: Model, *, batch_size: int = 1, threads: int = 0, share: Share = Share()
) -> Iterator[PredictedImage]:
    """The predictions of all files, in order. Memory depends on ``batch_size`` and ``threads``, not on their number.

    Args:
        batch_size: images that the network gets together. Batches are fixed by the order of ``files``: an image that
            fails leaves its batch smaller, and several processes make the same batches as one.
        threads: that decode the next images; 0 to decode in the calling thread.
        share: the batches that are predicted.
    """
    mine = (group for number, group in enumerate(_batches(files, batch_size)) if number % share.world == share.rank)
    for batch in _loaded(mine, predictor, threads, ahead=1 + -(-2 * threads // batch_size)):
        yield from _predicted(batch, predictor)


def _batches(files: Iterable[ImageFile], size: int) -> Iterator[tuple[ImageFile, ...]]:
    rest = iter(files)
    while batch := tuple(islice(rest, size)):
        yield batch


def _loaded(
    batches: Iterable[tuple[ImageFile, ...]], predictor: Model, threads: int, ahead: int
) -> Iterator[list[tuple[ImageFile, LoadedImage | Exception]]]:
    """The files of each batch with their pixels, or with why they have none; ``ahead`` batches are read ahead."""
    if not threads:
        yield from ([(file, _load(predictor, file.path)) for file in batch] for batch in batches)
        return
    waiting: deque[list[tuple[ImageFile, Future[LoadedImage | Exception]]]] = deque()
    pool = ThreadPoolExecutor(threads, "decode")
    try:
        for batch in chain(batches, [()] * ahead):
            waiting.append([(file, pool.submit(_load, predictor, file.path)) for file in batch])
            if len(waiting) > ahead:
                yield [(file, future.result()) for file, future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _load(predictor: Model, path: Path) -> LoadedImage | Exception:
    try:
        return predictor.load(path)
    except FAILURES as error:
        return error


def _predicted(
    batch: Sequence[tuple[ImageFile, LoadedImage | Exception]], predictor: Model
) -> Iterator[PredictedImage]:
    """The results of one batch, in order."""
    images = [image for _, image in batch if isinstance(image, LoadedImage)]
    outputs = iter(_run(predictor, images))
    for file, image in batch:
        if not isinstance(image, LoadedImage):
            yield PredictedImage(file, error=image)
            continue
        output, size_hw = next(outputs), image.geometry.original_hw
        if isinstance(output, Exception):
            yield PredictedImage(file, size_hw, error=output)
        else:
            yield PredictedImage(file, size_hw, output)


def _run(predictor: Model, images: Sequence[LoadedImage]) -> Sequence[AnyPrediction | Exception]:
    """The prediction of each image; one that fails, or does not fit into the memory, costs no other its result."""
    if not images:
        return []
    try:
        return predictor.run(images)
    except FAILURES as error:
        if len(images) == 1:
            return [error]
    except RuntimeError:  # of torch: a batch may not fit into the memory of the GPU
        if len(images) == 1:
            raise
    return [result for image in images for result in _run(predictor, [image])]
