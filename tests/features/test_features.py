"""Features that are kept: the same losses and weights as without, whatever fits, and never out of date."""

from __future__ import annotations

import errno
import itertools
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
from detseg.features.store import FeatureStore, source_of
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


def views_of(model: Any, task: Any, table: AnnotationTable, drawn: int = 1) -> Views:
    return Views(table, model.preprocessing, task=task, views=fixed_views("light", task, drawn), seed=5)


def filled(model: Any, views: Views, level: str, **options: Any) -> FeatureStore:
    options = {"dtype": torch.float32, "limit": 10**12} | options
    store = FeatureStore(**options)
    fill(store, model, views, level)
    return store


def trained(model: Any, loader: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of two epochs, and the weights after them."""
    model = deepcopy(model).train()
    optimizer = build_optimizer(model, name="adamw", lr=1e-3)
    losses = [train_one_epoch(model, optimizer, loader, CPU, epoch + 1, seed=9).losses["loss"] for epoch in range(2)]
    return losses, model.state_dict()


def same(one: Any, other: Any) -> bool:
    return bool(one[0] == other[0] and all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items()))


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
"""Task, what is frozen, and where features are taken."""


@pytest.mark.parametrize(("task", "frozen", "level"), CASES)
def test_a_float32_cache_gives_the_same_bits(
    task: str, frozen: str, level: str, demo: AnnotationTable, tmp_path: Path
) -> None:
    table = table_for(task, demo)
    model = model_for(task, table, frozen)
    views = views_of(model, task, table)
    uncached = trained(model, data_loader(views, 3, shuffle=True, seed=5))
    store = filled(model, views, level)
    assert len(store) == 3 * len(table)
    assert same(trained(model, FeatureLoader(store, model, views, level, 3, seed=5)), uncached)

    others = views_of(model, task, table)
    part = filled(model, others, level, limit=store.nbytes // 2)
    assert 0 < len(part) < len(store)
    assert part.full
    assert same(trained(model, FeatureLoader(part, model, others, level, 3, seed=5)), uncached)

    disk = filled(model, views_of(model, task, table), level, folder=tmp_path, source="s")
    assert same(trained(model, FeatureLoader(disk, model, views, level, 3, seed=5)), uncached)

    control = views_of(model, task, table, drawn=0)
    assert not same(trained(model, data_loader(control, 3, shuffle=True, seed=5)), uncached)


def test_float16_is_the_same_whatever_fits(demo: AnnotationTable, tmp_path: Path) -> None:
    model = model_for("segment", demo, "backbone")
    results = []
    for limit, folder, workers in ((10**12, None, 0), (0, None, 2), (10**6, None, 0), (10**6, tmp_path, 0)):
        views = views_of(model, "segment", demo)
        store = filled(model, views, "backbone", dtype=torch.float16, limit=limit, folder=folder, source="s")
        results.append(trained(model, FeatureLoader(store, model, views, "backbone", 3, seed=5, workers=workers)))
    assert all(same(one, results[0]) for one in results)
    exact = trained(model, data_loader(views_of(model, "segment", demo), 3, shuffle=True, seed=5))
    assert not same(exact, results[0])  # control: float16 rounds
    assert exact[0] == pytest.approx(results[0][0], rel=1e-2)


@pytest.mark.parametrize("limit", [10**6, *(pytest.param(limit, marks=pytest.mark.slow) for limit in (10**12, 0))])
@pytest.mark.parametrize(("task", "frozen", "level"), CASES)
def test_evaluation_is_the_same_to_the_bit(
    task: Any, frozen: str, level: str, limit: int, demo: AnnotationTable
) -> None:
    table = table_for(task, demo)
    model = model_for(task, table, frozen).eval()
    loader = data_loader(Dataset(table, model.preprocessing, task=task), 3)
    kept = EvaluationFeatures(model, loader, level, limit)
    evaluator = make_evaluator(table, task, model.preprocessing)
    plain = evaluate(model, loader, CPU, evaluator=evaluator).to_dict()
    expected = evaluator.to_bytes()
    for _ in range(3):
        evaluator.reset()
        assert evaluate(model, kept, CPU, evaluator=evaluator).to_dict() == plain  # type: ignore[arg-type]
        assert evaluator.to_bytes() == expected
        found = validation_loss(model, kept, CPU)  # type: ignore[arg-type]
    assert found == pytest.approx(validation_loss(model, loader, CPU), rel=1e-2 if frozen == "rpn" else 1e-4)


def test_a_folder_is_shared_and_never_out_of_date(demo: AnnotationTable, tmp_path: Path) -> None:
    model = model_for("detect", demo, "backbone")

    def in_folder(model: Any, table: AnnotationTable = demo, **options: Any) -> FeatureStore:
        source = source_of(model, "backbone", torch.float16, CPU)
        views = views_of(model, "detect", table, drawn=0)
        return filled(model, views, "backbone", dtype=torch.float16, folder=tmp_path, source=source, **options)

    first = in_folder(model)
    assert (first.found, len(first)) == (0, 2 * len(demo))
    again = in_folder(model)
    assert (again.found, again.nbytes) == (len(again), first.nbytes) == (2 * len(demo), first.nbytes)
    for name, parameter in model.named_parameters():
        if model.part_of(name) not in ("stem", "backbone"):
            torch.nn.init.normal_(parameter)
    assert in_folder(model).found == len(first)  # heads are not what features come from

    corrupt = next(tmp_path.glob("*/*.safetensors"))
    content = bytearray(corrupt.read_bytes())
    content[-5] ^= 1
    corrupt.write_bytes(content)
    repaired = in_folder(model)
    assert (repaired.found, repaired.corrupt, len(repaired)) == (len(first) - 1, 1, len(first))
    assert in_folder(model).corrupt == 0

    next(p for n, p in model.named_parameters() if model.part_of(n) == "backbone").data[0] += 1e-3
    assert in_folder(model).found == 0
    other = model_for("detect", demo, "backbone")
    other.description = other.description.__class__(**{**other.description.__dict__, "norm_eps": 0.5})
    assert source_of(other, "backbone", torch.float16, CPU) != source_of(model, "backbone", torch.float16, CPU)


def test_a_folder_has_one_limit_for_all_runs(demo: AnnotationTable, tmp_path: Path) -> None:
    model = model_for("classify", table_for("classify", demo), "backbone")
    views = views_of(model, "classify", table_for("classify", demo))
    first = filled(model, views, "pooled", folder=tmp_path, source="a" * 16)
    files = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    second = filled(model, views, "pooled", folder=tmp_path, source="b" * 16, limit=files + first.nbytes // 2)
    assert 0 < len(second) < len(first)
    again = filled(model, views, "pooled", folder=tmp_path, source="a" * 16, limit=1)
    assert (again.found, again.full) == (len(first), False)  # what is there takes no more room
    assert {path.parent.name for path in tmp_path.glob("*/*")} == {"a" * 16, "b" * 16}


def test_a_full_disk_ends_the_keeping_and_changes_no_number(
    demo: AnnotationTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_for("detect", demo, "backbone")
    views = views_of(model, "detect", demo)
    usual = trained(model, FeatureLoader(filled(model, views, "backbone"), model, views, "backbone", 3, seed=5))
    written = itertools.count()
    write = feature_store.write_tensor_file

    def limited(*given: Any) -> None:
        if next(written) >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*given)

    monkeypatch.setattr(feature_store, "write_tensor_file", limited)
    views = views_of(model, "detect", demo)
    store = filled(model, views, "backbone", folder=tmp_path, source="s")
    assert (len(store), store.full) == (4, True)
    assert same(trained(model, FeatureLoader(store, model, views, "backbone", 3, seed=5)), usual)


def test_a_removed_file_is_said(demo: AnnotationTable, tmp_path: Path) -> None:
    model = model_for("detect", demo, "backbone")
    views = views_of(model, "detect", demo, drawn=0)
    store = filled(model, views, "backbone", folder=tmp_path, source="s")
    for path in tmp_path.glob("*/*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"features of this run were removed; go on with --resume"):
        next(iter(FeatureLoader(store, model, views, "backbone", 2, seed=5)))


def test_too_large_for_float16(demo: AnnotationTable, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_for("detect", demo, "backbone")
    views = views_of(model, "detect", demo)
    compute = type(model).frozen_features

    def large(self: Any, *given: Any, **options: Any) -> Any:
        found = compute(self, *given, **options)
        found[0].maps["0"][0, 0, 0, 0] = 1e6
        return found

    monkeypatch.setattr(type(model), "frozen_features", large)
    with pytest.raises(DataError, match=rf"{demo[0].name}.*a feature of map '0' is 1e\+06.*--cache-dtype float32"):
        filled(model, views, "backbone", dtype=torch.float16)
    assert len(filled(model, views, "backbone", dtype=torch.float32)) == 3 * len(demo)
