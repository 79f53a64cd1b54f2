"""The stream of predictions: order, batches, failures, bounded reading ahead, and the shares of several processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.inference.prediction_files import PredictionLines, join_parts, read_lines
from detseg.inference.prediction_stream import ImageFile, PredictedImage, Share, predicted_images
from detseg.inference.predictor import LoadedImage
from detseg.preprocess import Geometry
from detseg.structures import Prediction


def found(name: str) -> Prediction:
    """A prediction that tells the name of its image."""
    box = np.float32([[0, 0, int(name), 1]])
    return Prediction((9, 9), box, np.ones(1, np.int64), np.ones(1, np.float32))


class Model:
    """Remembers its batches and how far it read ahead; images that are named in ``bad`` fail in a batch or alone."""

    def __init__(self, bad: dict[str, Exception] | None = None, unreadable: Sequence[str] = ()) -> None:
        self.batches: list[list[str]] = []
        self.loaded = self.done = self.most_ahead = 0
        self.bad, self.unreadable = bad or {}, unreadable
        self._lock = threading.Lock()

    def load(self, path: Path) -> LoadedImage:
        with self._lock:
            self.loaded += 1
            self.most_ahead = max(self.most_ahead, self.loaded - self.done)
        if path.name in self.unreadable:
            raise ValueError(f"{path.name} is no image")
        time.sleep(0.002 * (hash(path.name) % 3))  # they end in another order
        return LoadedImage(path, Geometry((9, 9), (9, 9)))  # type: ignore[arg-type]

    def run(self, images: Sequence[LoadedImage]) -> list[Any]:
        names = [Path(image.pixels).name for image in images]  # type: ignore[arg-type]
        self.batches.append(names)
        self.done += len(names)
        for name in names:
            if name in self.bad:
                raise self.bad[name]
        return [found(name) for name in names]


def files(number: int) -> list[ImageFile]:
    return [ImageFile(i, Path(str(i)), f"{i}.png") for i in range(1, number + 1)]


def widths(images: Sequence[PredictedImage]) -> list[int | None]:
    predictions = [image.prediction for image in images]
    return [int(p.boxes[0, 2]) if isinstance(p, Prediction) else None for p in predictions]


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_order_is_that_of_the_files(threads: int, batch_size: int) -> None:
    model = Model()
    images = list(predicted_images(files(10), model, batch_size=batch_size, threads=threads))
    assert widths(images) == list(range(1, 11))
    assert [image.file.image_id for image in images] == list(range(1, 11))
    assert max(map(len, model.batches)) == min(batch_size, 10)
    assert not list(predicted_images([], model, batch_size=batch_size, threads=threads))


def test_a_failure_costs_one_image() -> None:
    model = Model({"3": ValueError("no numbers"), "6": RuntimeError("out of memory")}, unreadable=["5"])
    stream = predicted_images(files(5), model, batch_size=4, threads=2)
    images = list(stream)
    assert widths(images) == [1, 2, None, 4, None]
    assert [str(image.error) for image in images if image.error] == ["no numbers", "5 is no image"]
    assert images[2].size_hw == (9, 9)
    with pytest.raises(RuntimeError, match="out of memory"):  # one image alone: the program is at fault
        list(predicted_images(files(7), model, batch_size=4, threads=2))


def test_it_reads_ahead_by_a_bounded_number() -> None:
    model, threads, batch_size = Model(), 3, 2
    for _ in predicted_images(files(200), model, batch_size=batch_size, threads=threads):
        time.sleep(0.0005)
    assert threads < model.most_ahead <= 2 * batch_size + 3 * threads + 1
    all_at_once = Model()
    for file in files(200):  # control: without a bound
        all_at_once.load(file.path)
    assert all_at_once.most_ahead == 200


def test_a_stream_that_is_left_stops_its_threads() -> None:
    before = threading.active_count()
    model = Model()
    stream = predicted_images(files(500), model, threads=3)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert model.loaded < 50


def lines_of(folder: Path, share: Share, rank: int | None, batch_size: int, number: int = 11) -> list[bytes]:
    model = Model(unreadable=["4"])
    with PredictionLines(folder, rank) as lines:
        for image in predicted_images(files(number), model, batch_size=batch_size, share=share):
            if image.prediction is None:
                lines.failure(image.file.image_id, image.file.name, str(image.error))
            else:
                lines.results(image.file.image_id, image.file.name, [], image.size_hw)
    return [] if rank is not None else list(read_lines(folder))


@pytest.mark.parametrize(("world", "batch_size"), [(2, 1), (2, 3), (3, 2), (8, 4)])
def test_the_shares_of_processes_join_to_the_lines_of_one(world: int, batch_size: int, tmp_path: Path) -> None:
    expected = lines_of(tmp_path, Share(), None, batch_size)
    assert [json.loads(line)["image_id"] for line in expected] == list(range(1, 12))
    for rank in range(world):
        lines_of(tmp_path, Share(rank, world), rank, batch_size)
    assert join_parts(tmp_path, world, batch_size) == 1
    assert list(read_lines(tmp_path)) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_control_parts_that_are_joined_in_another_way_are_in_another_order(tmp_path: Path) -> None:
    expected = lines_of(tmp_path, Share(), None, 3)
    for rank in range(2):
        lines_of(tmp_path, Share(rank, 2), rank, 3)
    join_parts(tmp_path, 2, 1)
    assert list(read_lines(tmp_path)) != expected


@pytest.mark.slow
def test_two_processes_give_the_files_of_one(parts: Path, train: Any, no_images: None, tmp_path: Path) -> None:
    run = train(parts, tmp_path / "run", "--lr", "1e-3")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    predict = ["-m", "detseg", "predict", str(run), str(broken), f"{parts}/*/*.jpg"]
    predict += ["--outputs", "coco,csv,images,masks", "--min-score", "0.1"]
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *predict]
    for words, name in ((predict, "one"), (together, "two")):
        done = subprocess.run(
            [sys.executable, *words, "--output", str(tmp_path / name)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 1, done.stderr  # one image cannot be read
        assert done.stdout.count("1 of ") == 1, done.stdout + done.stderr
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
        if (tmp_path / name).is_dir()
    )
    assert one == two
    assert len(one) > 10
