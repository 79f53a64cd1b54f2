"""Collect images of several requests, and predict them together in one thread."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from detseg.errors import DataError

Many = Callable[[Sequence[bytes]], list[Any]]
"""Image files -> their predictions, as ``Predictor.many``."""

LONGEST_WAIT = 60
"""Most seconds that a refused client is told to wait."""

logger = logging.getLogger(__name__)


class QueueFull(Exception):
    """The images do not fit into the queue. ``retry_after``: seconds after which they probably do."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class Stopped(Exception):
    """The batcher takes no more images."""


@dataclass(eq=False)
class _Job:
    image: bytes
    arrived: float
    result: asyncio.Future[Any]


class Batcher:
    """Predicts images in batches, first come, first served. All methods are called in one event loop.

    Args:
        many: predicts a batch; it is called in one thread, never twice at a time.
        batch_size: most images of a batch.
        window: seconds that an image waits for others.
        queue_size: most images that wait.
        longest: seconds after which a batch that still runs makes it not ready.
        observe: is told the size of each batch.

    Attributes:
        has_failed: whether it ended by an error, of the first prediction or its own.
    """

    def __init__(
        self,
        many: Many,
        *,
        batch_size: int,
        window: float,
        queue_size: int,
        longest: float = math.inf,
        observe: Callable[[int], object] = lambda size: None,
    ) -> None:
        self.batch_size, self.window, self.queue_size, self.longest = batch_size, window, queue_size, longest
        self._many, self._observe = many, observe
        self._jobs: dict[_Job, None] = {}  # those that wait, in order
        self._changed = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._seconds = 0.1  # per image, a moving average
        self._started = math.inf  # when the batch that runs began
        self._is_warm = self.has_failed = False

    def start(self, warm_up: bytes) -> None:
        """Start to predict; ``warm_up`` is an image file that is predicted first."""
        self._task = asyncio.create_task(self._run(warm_up))

    async def stop(self) -> None:
        """Take no more images, and return when all that wait are predicted."""
        self._stopping = True
        self._changed.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    def __len__(self) -> int:
        """Number of images that wait."""
        return len(self._jobs)

    @property
    def is_ready(self) -> bool:
        """Whether it has predicted a first image, takes more, and does not hang."""
        return self._is_warm and not self._stopping and not self.hangs

    @property
    def hangs(self) -> bool:
        """Whether a batch has run for longer than ``longest``."""
        return time.monotonic() - self._started > self.longest

    @property
    def is_full(self) -> bool:
        return len(self) >= self.queue_size

    @property
    def retry_after(self) -> int:
        """Seconds after which the images that wait now are probably predicted."""
        return min(LONGEST_WAIT, max(1, math.ceil(len(self) * self._seconds)))

    def submit(self, images: Sequence[bytes]) -> list[asyncio.Future[Any]]:
        """Add images to the queue, all or none.

        Returns:
            A future per image: its prediction, or the exception of its decoding or prediction. An image whose future is
            cancelled before its batch begins costs nothing.

        Raises:
            QueueFull: they do not fit.
            Stopped: it was stopped.
        """
        if self._stopping:
            raise Stopped
        if len(self) + len(images) > self.queue_size:
            raise QueueFull(self.retry_after)
        loop = asyncio.get_running_loop()
        futures = []
        for image in images:
            job = _Job(image, loop.time(), loop.create_future())
            job.result.add_done_callback(lambda _, job=job: self._jobs.pop(job, None))  # type: ignore[misc]
            self._jobs[job] = None
            futures.append(job.result)
        self._changed.set()
        return futures

    async def _run(self, warm_up: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            with ThreadPoolExecutor(1, "predictor") as thread:
                await loop.run_in_executor(thread, self._many, [warm_up])
                self._is_warm = True
                while batch := await self._next_batch():
                    self._started = time.monotonic()
                    self._observe(len(batch))
                    results = await loop.run_in_executor(thread, _predict, self._many, [job.image for job in batch])
                    self._seconds += 0.2 * ((time.monotonic() - self._started) / len(batch) - self._seconds)
                    self._started = math.inf
                    for job, result in zip(batch, results, strict=True):
                        _set(job.result, result)
        except Exception:
            self.has_failed = True
            logger.exception("the predictor stopped")
        finally:
            self._stopping = True
            for job in list(self._jobs):
                _set(job.result, Stopped())

    async def _next_batch(self) -> list[_Job]:
        """The next images, as soon as a batch is full or the first has waited for the window; none at the end."""
        while True:
            while not self._jobs and not self._stopping:
                self._changed.clear()
                await self._changed.wait()
            if not self._jobs:
                return []
            await self._fill(next(iter(self._jobs)).arrived + self.window)
            batch = list(islice(self._jobs, self.batch_size))
            for job in batch:
                del self._jobs[job]
            if batch := [job for job in batch if not job.result.done()]:
                return batch

    async def _fill(self, ends: float) -> None:
        try:
            async with asyncio.timeout_at(ends):
                while len(self) < self.batch_size and not self._stopping:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass


def _set(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():  # cancelled: its client has gone, or its deadline has passed
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _predict(many: Many, images: list[bytes]) -> list[Any]:
    """The prediction or the exception of each image: one that fails costs no other its result."""
    try:
        return many(images)
    except Exception as error:  # also those of the network, such as out of memory
        if len(images) == 1:
            if not isinstance(error, (DataError, OSError)):
                logger.exception("an image could not be predicted")
            return [error]
    return [result for image in images for result in _predict(many, [image])]
