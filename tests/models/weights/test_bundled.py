"""Test the weights inside the package: intact, small, verified by checksum, and usable for every task."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema
from detseg.models import build_model, describe
from detseg.models.weights import bundled
from detseg.models.weights.bundled import BUNDLED, FITTING, SHA256, read_bundled
from detseg.models.weights.load import LoadReport, load_weights
from detseg.models.weights.starting_weights import StartingWeights, read_state_dict
from detseg.synthetic.scenes import SHAPE_FAMILIES

CLASSES = ClassMap.from_names(["bolt", "nut"])
POINTS = KeypointSchema(("left", "right"))


def load_bundled(arch: str, **settings: Any) -> tuple[Any, LoadReport]:
    model = build_model(describe(arch, CLASSES, weights=BUNDLED, **settings))
    return model, load_weights(model, BUNDLED)


def test_the_file_is_small_half_precision_and_documented() -> None:
    path, _ = read_bundled()
    assert path.stat().st_size <= 10_000_000
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    assert SHA256 in (path.parent / "card.md").read_text(), "the card describes this file"
    dtypes = {tensor.dtype for tensor in read_state_dict(BUNDLED).values()}
    assert dtypes == {torch.float16, torch.int64}
    description = StartingWeights.open(BUNDLED).description
    assert description is not None
    assert set(description.class_map.names) <= set(SHAPE_FAMILIES)
    assert all(torch.isfinite(tensor).all() for tensor in read_state_dict(BUNDLED).values())


@pytest.mark.parametrize("task", sorted(FITTING))
def test_every_task_has_a_model_for_these_weights(task: str) -> None:
    model, report = load_bundled(FITTING[task], keypoints=POINTS if task == "keypoints" else None)
    parts = {part: (loaded, count) for part, loaded, count in report.by_part}
    assert parts["stem"][0] == parts["stem"][1] > 0
    if task == "classify":
        assert 0 < parts["backbone"][0] < parts["backbone"][1]
        return
    assert parts["backbone"][0] == parts["backbone"][1] > 0
    assert parts["neck"][0] == parts["neck"][1] > 0
    assert parts["rpn"][0] == parts["rpn"][1] > 0
    saved = StartingWeights.open(BUNDLED).description
    assert saved is not None
    assert model.description.anchor_sizes == saved.anchor_sizes
    assert report.source.startswith("bundled (")


def test_a_classifier_loads_only_the_first_stages() -> None:
    """Up to stride 8; the others keep their random initialization."""
    torch.manual_seed(5)
    initial = build_model(describe(FITTING["classify"], CLASSES, weights=BUNDLED)).state_dict()
    torch.manual_seed(5)
    model, report = load_bundled(FITTING["classify"])
    state, saved = model.state_dict(), read_state_dict(BUNDLED)
    first = {name for name in state if name.startswith("features.") and int(name.split(".")[1]) <= 6}
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert set(report.loaded) == first - counters
    assert all(torch.equal(state[name], saved[f"backbone.body.{name[9:]}"].float()) for name in report.loaded)
    assert all(torch.equal(state[name], initial[name]) for name in state.keys() - first)
    assert any("randomly initialized" in line and "tensors of backbone" in line for line in report.lines())


def test_box_and_mask_rows_of_new_classes_are_the_mean_of_all_classes() -> None:
    model, report = load_bundled(FITTING["segment"])
    state, saved = model.state_dict(), read_state_dict(BUNDLED)
    for name in ("mask_predictor.mask_fcn_logits.weight", "box_predictor.bbox_pred.weight"):
        new, source = state[f"roi_heads.{name}"], saved[f"roi_heads.{name}"].float()
        new, source = new.view(3, -1), source.view(len(source) // (len(new) // 3), -1)
        torch.testing.assert_close(new[1], source[1:].mean(0))
        assert torch.equal(new[1], new[2])
    assert report.matched == ()


def test_another_network_is_refused() -> None:
    with pytest.raises(DataError, match=r"bundled .*resnet18"):
        load_bundled("fasterrcnn_resnet18_fpn")


def test_a_corrupt_or_missing_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "detseg"
    (package / "models").mkdir(parents=True)
    (package / "weights").mkdir()
    monkeypatch.setattr(bundled, "__file__", str(package / "models" / "weights" / "bundled.py"))
    with pytest.raises(DataError, match=r"missing.*reinstall detseg"):
        read_bundled()
    content = bytearray(BYTES)
    (package / "weights" / NAME).write_bytes(content)
    assert read_bundled()[0] == package / "weights" / NAME, "control"
    content[len(content) // 2] ^= 1
    (package / "weights" / NAME).write_bytes(content)
    with pytest.raises(DataError, match="changed or is corrupt: its sha256 is"):
        describe(FITTING["detect"], CLASSES, weights=BUNDLED)


NAME = f"{bundled.BUNDLED_ARCH}.safetensors"
BYTES = (Path(bundled.__file__).parents[2] / "weights" / NAME).read_bytes()
