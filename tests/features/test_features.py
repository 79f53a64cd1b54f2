"""Cached features: the same losses and weights as without a cache, for any limit, and never out of date."""

from __future__ import annotations

import errno
import faulthandler
import itertools
import mmap
import os
import signal
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detseg.annotations import AnnotationTable, read
from detseg.annotations.table import AnnotationTable as Table
from detseg.classes import ClassMap
from detseg.datasets import Dataset, Views, data_loader, fixed_views
from detseg.engine.evaluate import evaluate, validation_loss
from detseg.engine.evaluator import make_evaluator
from detseg.engine.optim import build_optimizer
from detseg.engine.train import train_one_epoch
from detseg.errors import DataError
from detseg.features import store as feature_store
from detseg.features.loader import EvaluationFeatures, FeatureLoader, fill
from detseg.features.store import FeatureStore, source_checksum
from detseg.models import build_model, describe, freeze

CPU = torch.device("cpu")
ARCHS = {
    "segment": "maskrcnn_mobilenet_v3_large_fpn_slim",
    "detect": "fasterrcnn_mobilenet_v3_large_fpn",
    "classify": "resnet18",
}


@pytest.fixture(scope="module")
def demo() -> AnnotationTable:
    return read(Path(__file__).parents[2] / "data" / "demo").subset(range(0, 100, 21))


def table_for(task: str, demo: AnnotationTable) -> AnnotationTable:
    if task != "classify":
        return demo
    from dataclasses import replace

    index = (np.arange(len(demo)) % 3).astype(np.int32)[:, None]
    table: Table = replace(demo, class_index=index)
    return table


def model_for(task: str, table: AnnotationTable, level: str, *, arch: str | None = None) -> Any:
    torch.manual_seed(3)
    options = {} if task == "classify" else {"rois_per_image": 16, "detections_per_image": 10}
    classes = ClassMap.from_names(("a", "b", "c")) if task == "classify" else table.class_map
    model = build_model(describe(arch or ARCHS[task], classes, weights="none", image_size=64, **options))
    freeze(model, level)
    return model


def views_of(model: Any, task: Any, table: AnnotationTable, augmented: int = 1) -> Views:
    return Views(table, model.preprocessing, task=task, views=fixed_views("light", task, augmented), seed=5)


def filled_store(model: Any, views: Views, level: str, **options: Any) -> FeatureStore:
    options = {"dtype": torch.float32, "limit": 10**12} | options
    store = FeatureStore(**options)
    fill(store, model, views, level)
    return store


def trained(model: Any, loader: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and final weights of two epochs."""
    model = deepcopy(model).train()
    optimizer = build_optimizer(model, name="adamw", lr=1e-3)
    losses = [train_one_epoch(model, optimizer, loader, CPU, epoch + 1, seed=9).losses["loss"] for epoch in range(2)]
    return losses, model.state_dict()


def equal_results(a: Any, b: Any) -> bool:
    return bool(a[0] == b[0] and all(torch.equal(tensor, b[1][name]) for name, tensor in a[1].items()))


CASES = [
    ("segment", "rpn", "neck"),
    ("classify", "backbone", "pooled"),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("segment", "backbone", "backbone"),
            ("segment", "neck", "neck"),
            ("segment", "neck", "backbone"),
            ("detect", "backbone", "backbone"),
            ("detect", "rpn", "backbone"),
        )
    ),
]
"""Task, frozen parts, and level of the features."""


@pytest.mark.parametrize(("task", "frozen", "level"), CASES)
def test_a_float32_cache_is_bit_identical(
    task: str, frozen: str, level: str, demo: AnnotationTable, tmp_path: Path
) -> None:
    table = table_for(task, demo)
    model = model_for(task, table, frozen)
    views = views_of(model, task, table)
    uncached = trained(model, data_loader(views, 3, shuffle=True, seed=5))
    store = filled_store(model, views, level)
    assert len(store) == 3 * len(table)
    assert equal_results(trained(model, FeatureLoader(store, model, views, level, 3, seed=5)), uncached)

    half_views = views_of(model, task, table)
    half_store = filled_store(model, half_views, level, limit=store.nbytes // 2)
    assert 0 < len(half_store) < len(store)
    assert half_store.full
    assert equal_results(trained(model, FeatureLoader(half_store, model, half_views, level, 3, seed=5)), uncached)

    disk = filled_store(model, views_of(model, task, table), level, folder=tmp_path, source="s")
    assert equal_results(trained(model, FeatureLoader(disk, model, views, level, 3, seed=5)), uncached)

    control = views_of(model, task, table, augmented=0)
    assert not equal_results(trained(model, data_loader(control, 3, shuffle=True, seed=5)), uncached)


def test_float16_results_do_not_depend_on_the_limit(demo: AnnotationTable, tmp_path: Path) -> None:
    model = model_for("segment", demo, "backbone")
    results = []
    for limit, folder, workers in ((10**12, None, 0), (0, None, 2), (10**6, None, 0), (10**6, tmp_path, 0)):
        views = views_of(model, "segment", demo)
        store = filled_store(model, views, "backbone", dtype=torch.float16, limit=limit, folder=folder, source="s")
        results.append(trained(model, FeatureLoader(store, model, views, "backbone", 3, seed=5, workers=workers)))
    assert all(equal_results(result, results[0]) for result in results)
    exact = trained(model, data_loader(views_of(model, "segment", demo), 3, shuffle=True, seed=5))
    assert not equal_results(exact, results[0])  # control: float16 rounds
    assert exact[0] == pytest.approx(results[0][0], rel=1e-2)


@pytest.mark.parametrize("limit", [10**6, *(pytest.param(limit, marks=pytest.mark.slow) for limit in (10**12, 0))])
@pytest.mark.parametrize(("task", "frozen", "level"), CASES)
def test_evaluation_is_bit_identical(task: Any, frozen: str, level: str, limit: int, demo: AnnotationTable) -> None:
    table = table_for(task, demo)
    model = model_for(task, table, frozen).eval()
    loader = data_loader(Dataset(table, model.preprocessing, task=task), 3)
    cached_loader = EvaluationFeatures(model, loader, level, limit)
    evaluator = make_evaluator(table, task, model.preprocessing)
    expected_metrics = evaluate(model, loader, CPU, evaluator=evaluator).to_dict()
    expected = evaluator.to_bytes()
    for _ in range(3):
        evaluator.reset()
        metrics = evaluate(model, cached_loader, CPU, evaluator=evaluator)  # type: ignore[arg-type]
        assert metrics.to_dict() == expected_metrics
        assert evaluator.to_bytes() == expected
        losses = validation_loss(model, cached_loader, CPU)  # type: ignore[arg-type]
    assert losses == pytest.approx(validation_loss(model, loader, CPU), rel=1e-2 if frozen == "rpn" else 1e-4)


def test_a_folder_is_shared_and_never_out_of_date(demo: AnnotationTable, tmp_path: Path) -> None:
    model = model_for("detect", demo, "backbone")

    def in_folder(model: Any, table: AnnotationTable = demo, **options: Any) -> FeatureStore:
        source = source_checksum(model, "backbone", torch.float16, CPU)
        views = views_of(model, "detect", table, augmented=0)
        return filled_store(model, views, "backbone", dtype=torch.float16, folder=tmp_path, source=source, **options)

    first = in_folder(model)
    assert (first.reused, len(first)) == (0, 2 * len(demo))
    again = in_folder(model)
    assert (again.reused, again.nbytes) == (len(again), first.nbytes) == (2 * len(demo), first.nbytes)
    for name, parameter in model.named_parameters():
        if model.part_of(name) not in ("stem", "backbone"):
            torch.nn.init.normal_(parameter)
    assert in_folder(model).reused == len(first)  # features do not depend on the heads

    corrupt = next(tmp_path.glob("*/*.safetensors"))
    content = bytearray(corrupt.read_bytes())
    content[-5] ^= 1
    corrupt.write_bytes(content)
    repaired = in_folder(model)
    assert (repaired.reused, repaired.corrupt, len(repaired)) == (len(first) - 1, 1, len(first))
    assert in_folder(model).corrupt == 0

    next(p for n, p in model.named_parameters() if model.part_of(n) == "backbone").data[0] += 1e-3
    assert in_folder(model).reused == 0
    other = model_for("detect", demo, "backbone")
    other.description = other.description.__class__(**{**other.description.__dict__, "norm_eps": 0.5})
    assert source_checksum(other, "backbone", torch.float16, CPU) != source_checksum(
        model, "backbone", torch.float16, CPU
    )


def test_a_folder_has_one_limit_for_all_runs(demo: AnnotationTable, tmp_path: Path) -> None:
    model = model_for("classify", table_for("classify", demo), "backbone")
    views = views_of(model, "classify", table_for("classify", demo))
    first = filled_store(model, views, "pooled", folder=tmp_path, source="a" * 16)
    files = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    second = filled_store(model, views, "pooled", folder=tmp_path, source="b" * 16, limit=files + first.nbytes // 2)
    assert 0 < len(second) < len(first)
    again = filled_store(model, views, "pooled", folder=tmp_path, source="a" * 16, limit=1)
    assert (again.reused, again.full) == (len(first), False)  # existing files need no more space
    assert {path.parent.name for path in tmp_path.glob("*/*")} == {"a" * 16, "b" * 16}


def test_a_full_disk_stops_caching_and_does_not_change_the_results(
    demo: AnnotationTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_for("detect", demo, "backbone")
    views = views_of(model, "detect", demo)
    expected = trained(
        model, FeatureLoader(filled_store(model, views, "backbone"), model, views, "backbone", 3, seed=5)
    )
    files = itertools.count()
    write = feature_store.write_tensor_file

    def write_four_files(*args: Any) -> None:
        if next(files) >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args)

    monkeypatch.setattr(feature_store, "write_tensor_file", write_four_files)
    views = views_of(model, "detect", demo)
    store = filled_store(model, views, "backbone", folder=tmp_path, source="s")
    assert (len(store), store.full) == (4, True)
    assert equal_results(trained(model, FeatureLoader(store, model, views, "backbone", 3, seed=5)), expected)


def test_a_removed_file_is_an_error(demo: AnnotationTable, tmp_path: Path) -> None:
    model = model_for("detect", demo, "backbone")
    views = views_of(model, "detect", demo, augmented=0)
    store = filled_store(model, views, "backbone", folder=tmp_path, source="s")
    for path in tmp_path.glob("*/*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"cached features of this run were removed; continue with --resume"):
        next(iter(FeatureLoader(store, model, views, "backbone", 2, seed=5)))


def test_a_truncated_file_is_an_error_and_no_signal(demo: AnnotationTable, tmp_path: Path) -> None:
    model = model_for("detect", demo, "backbone")
    views = views_of(model, "detect", demo, augmented=0)
    store = filled_store(model, views, "backbone", folder=tmp_path, source="s")
    key = sorted(store.keys, key=str)[0]
    assert store.sample(key)[0].nbytes > 0
    for path in tmp_path.glob("*/*"):
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"truncated or overwritten since the run began; continue with --resume"):
        store.sample(key)
    for content in (b"", b"\xff" * 100, (2**62).to_bytes(8, "little"), b"\x02" + bytes(7) + b"{}"):
        for path in tmp_path.glob("*/*"):
            path.write_bytes(content)
        with pytest.raises(DataError, match="truncated or overwritten"):
            store.sample(key)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_control_a_memory_map_of_a_truncated_file_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "features"
    path.write_bytes(bytes(100_000))
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            os.truncate(path, 10)
            view[90_000]
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGBUS


def test_what_killed_runs_left_in_the_folder_is_removed(tmp_path: Path) -> None:
    """Only what is old: another run may write at this moment."""
    part = tmp_path / "0123456789abcdef"
    part.mkdir()
    for name, age in ((".a.safetensors.abcdefgh.tmp", 2), (".b.safetensors.abcdefgh.tmp", 0), (".mine.tmp", 2)):
        (part / name).write_bytes(b"x")
        os.utime(part / name, (time.time() - age * feature_store.ABANDONED,) * 2)
    FeatureStore(dtype=torch.float32, limit=1, folder=tmp_path)
    assert {path.name for path in part.iterdir()} == {".b.safetensors.abcdefgh.tmp", ".mine.tmp"}


def test_too_large_for_float16(demo: AnnotationTable, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_for("detect", demo, "backbone")
    views = views_of(model, "detect", demo)
    compute = type(model).frozen_features

    def with_large_value(self: Any, *args: Any, **options: Any) -> Any:
        features = compute(self, *args, **options)
        features[0].maps["0"][0, 0, 0, 0] = 1e6
        return features

    monkeypatch.setattr(type(model), "frozen_features", with_large_value)
    with pytest.raises(DataError, match=rf"{demo[0].name}.*a feature of map '0' is 1e\+06.*--cache-dtype float32"):
        filled_store(model, views, "backbone", dtype=torch.float16)
    assert len(filled_store(model, views, "backbone", dtype=torch.float32)) == 3 * len(demo)
