"""Test the search for the largest batch that fits in GPU memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detseg.cli import main
from detseg.training.batch_size import largest_batch


def memory(base: int, each: int, limit: int, tried: list[int], bend: int = 10**9) -> Callable[[int], int | None]:
    """Simulate a GPU of ``limit`` bytes; a step needs ``base`` + ``each`` per image, twice ``each`` above ``bend``."""

    def peak(count: int) -> int | None:
        tried.append(count)
        used = base + each * count + each * max(0, count - bend)
        return used if used <= limit else None

    return peak


@pytest.mark.parametrize(
    ("base", "each", "limit", "most", "size"),
    [(10, 10, 100, 64, 7), (10, 10, 100, 3, 3), (10, 80, 100, 64, 1), (95, 1, 100, 1, 1), (200, 1, 100, 8, 1)],
)
def test_memory_that_grows_linearly(base: int, each: int, limit: int, most: int, size: int) -> None:
    tried: list[int] = []
    count, used = largest_batch(memory(base, each, limit, tried), 80, most)
    assert count == size
    assert used <= 80 or size == 1
    assert len(tried) <= 3


def test_memory_that_grows_faster_later() -> None:
    tried: list[int] = []
    peak = memory(0, 10, 1000, tried, bend=20)
    count, used = largest_batch(peak, 800, 64)
    assert used == peak(count)
    assert used <= 800
    assert (peak(count + count // 4 + 2) or 1000) > 800, "close to the largest"


def test_without_a_gpu_it_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--batch-size", "0", "--device", "cpu", "--output", str(tmp_path / "run")]) == 1
    assert "--batch-size 0 measures the memory of a GPU" in capsys.readouterr().err


@pytest.mark.gpu
def test_on_a_gpu_the_batch_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert torch.cuda.is_available()
    assert main(["train", "--batch-size", "0", "--epochs", "1", "--output", str(tmp_path / "run")]) == 0
    assert "batch size " in capsys.readouterr().out
