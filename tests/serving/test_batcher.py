"""Batches: order, isolation, bounds, cancelled images, the end."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from detseg.errors import DataError
from detseg.serving.batcher import Batcher, QueueFull, Stopped


class Lengths:
    """Predicts the length of an image; ``bad`` ones fail, and ``gate`` holds every batch but the warm-up."""

    def __init__(self, reply_order: Callable[[list[int]], list[int]] = lambda values: values) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.reply_order = reply_order

    def __call__(self, images: Sequence[bytes], /) -> list[Any]:
        self.gate.wait(10)
        self.batches.append(len(images))
        if b"bad" in images:
            raise DataError("an image is bad")
        if b"broken" in images:
            raise RuntimeError("out of memory")
        return self.reply_order([len(image) for image in images])


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(main(), 20))


def batcher(many: Lengths, **options: Any) -> Batcher:
    return Batcher(many, **{"batch_size": 4, "window": 0.005, "queue_size": 100, **options})


async def answers(images: list[bytes], many: Lengths, **options: Any) -> list[Any]:
    one = batcher(many, **options)
    one.start(b"")
    futures = [future for image in images for future in one.submit([image])]
    results = await asyncio.gather(*futures, return_exceptions=True)
    await one.stop()
    return results


def test_each_image_has_its_own_answer(tally: Callable[[str, int, int], None]) -> None:
    rng = random.Random(0)
    images = [b"x" * rng.randrange(50) for _ in range(10_000)]
    lengths = [len(image) for image in images]
    results = run(lambda: answers(images, Lengths(), queue_size=10_000))
    equal = sum(result == length for result, length in zip(results, lengths, strict=True))
    tally("V5 images of batches: their own answers", equal, len(images))
    shuffled = Lengths(lambda values: values[::-1])
    assert run(lambda: answers(images, shuffled, queue_size=10_000)) != lengths, "control: replies in another order"


def test_images_that_fail_cost_no_other_its_answer() -> None:
    many = Lengths()
    results = run(lambda: answers([b"a", b"bad", b"ccc", b"broken"], many))
    assert [results[0], results[2]] == [1, 3]
    assert isinstance(results[1], DataError)
    assert isinstance(results[3], RuntimeError)
    assert many.batches == [1, 4, 1, 1, 1, 1], "together first, then alone"


def test_images_are_predicted_together_within_the_window() -> None:
    many = Lengths()
    run(lambda: answers([b"x"] * 10, many))
    assert many.batches == [1, 4, 4, 2]
    single = Lengths()
    run(lambda: answers([b"x"] * 10, single, batch_size=1))
    assert single.batches == [1] * 11, "control"


async def _full(queue_size: int) -> tuple[int, int]:
    many = Lengths()
    one = batcher(many, queue_size=queue_size)
    one.start(b"")
    while not one.is_ready:
        await asyncio.sleep(0.001)
    many.gate.clear()
    accepted, waits = [], []
    for _ in range(40):
        try:
            accepted += one.submit([b"x"])
        except QueueFull as error:
            waits.append(error.retry_after)
    assert all(1 <= wait <= 60 for wait in waits)
    assert len(one) == len(accepted) <= queue_size
    with pytest.raises(QueueFull):
        one.submit([b"x"] * (queue_size - len(one) + 1))  # all or none
    assert len(one) == len(accepted)
    many.gate.set()
    assert await asyncio.gather(*accepted) == [1] * len(accepted)
    await one.stop()
    return len(accepted), len(waits)


def test_the_queue_is_bounded() -> None:
    assert run(lambda: _full(8)) == (8, 32)
    assert run(lambda: _full(10_000)) == (40, 0), "control: without a bound nothing is refused"


def test_cancelled_images_are_not_predicted_and_free_their_place() -> None:
    async def main() -> list[int]:
        many = Lengths()
        one = batcher(many, queue_size=4, batch_size=1, window=0)
        one.start(b"")
        while not one.is_ready:
            await asyncio.sleep(0.001)
        many.gate.clear()
        first = one.submit([b"first"])
        await asyncio.sleep(0.02)  # now in progress
        waiting = one.submit([b"x"] * 4)
        assert one.is_full
        for future in waiting[:3]:
            future.cancel()
        await asyncio.sleep(0)
        assert len(one) == 1
        waiting += one.submit([b"yy"] * 3)
        many.gate.set()
        results = await asyncio.gather(*first, *waiting, return_exceptions=True)
        await one.stop()
        assert [value for value in results if isinstance(value, int)] == [5, 1, 2, 2, 2]
        return many.batches

    assert run(main) == [1] * 6


def test_stop_answers_all_and_takes_no_more() -> None:
    async def main() -> None:
        many = Lengths()
        one = batcher(many)
        one.start(b"")
        futures = [one.submit([b"x"])[0] for _ in range(20)]
        await one.stop()
        assert all(future.result() == 1 for future in futures)
        assert not one.is_ready
        with pytest.raises(Stopped):
            one.submit([b"x"])

    run(main)


def test_a_predictor_that_cannot_start_answers_with_errors() -> None:
    async def main() -> None:
        many = Lengths()
        one = batcher(many)
        one.start(b"broken")
        (future,) = one.submit([b"x"])
        with pytest.raises(Stopped):
            await future
        assert not one.is_ready
        await one.stop()

    run(main)
