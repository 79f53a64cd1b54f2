"""Test runs on cached features: output, reuse, resume, replay, and linear probing before fine-tuning."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoints import load_checkpoint
from detseg.cli import main
from detseg.features.store import FeatureStore
from detseg.models import Detector

pytestmark = pytest.mark.usefixtures("no_images")

Train = Callable[..., Path]
FROZEN = ("--freeze", "backbone", "--epochs", "2", "--image-size", "64", "--augment", "flip")
PROBE = ("--linear-probe-epochs", "1", "--epochs", "3", "--image-size", "64")


def state(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(run / "last.safetensors")
    return checkpoint.weights | checkpoint.optimizer


def equal(first: Path, second: Path) -> bool:
    a, b = state(first), state(second)
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


@pytest.fixture(scope="module")
def cached(parts: Path, train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(parts, tmp_path_factory.mktemp("cached") / "run", *FROZEN)


@pytest.mark.slow
def test_memory_disk_and_limited_caches_have_equal_results(
    cached: Path, parts: Path, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = ("--cache", "disk", "--cache-dir", str(tmp_path / "features"))
    assert equal(train(parts, tmp_path / "disk", *FROZEN, *disk), cached)
    printed = capsys.readouterr().out
    assert "cache: backbone features of 4 images (original, flipped), about" in printed
    assert f"of float16 in {tmp_path / 'features'}; 1 s to compute, once" in printed
    assert "already" not in printed
    assert equal(train(parts, tmp_path / "again", *FROZEN, *disk), cached)
    assert f"8 of 8 were in {tmp_path / 'features'}" in capsys.readouterr().out
    few = ("--cache", "memory", "--cache-limit", "0.00005")
    assert equal(train(parts, tmp_path / "few", *FROZEN, *few), cached)
    assert "of which 0.05 MB are cached" in capsys.readouterr().out
    assert not equal(train(parts, tmp_path / "exact", *FROZEN, "--cache-dtype", "float32"), cached)  # control


@pytest.mark.slow
@pytest.mark.parametrize(("augment", "is_equal"), [("none", True), ("flip", False)])
def test_a_float32_cache_equals_no_cache_without_augmentation_only(
    augment: str, is_equal: bool, parts: Path, train: Train, tmp_path: Path
) -> None:
    options = (*FROZEN, "--augment", augment)
    exact = train(parts, tmp_path / "exact", *options, "--cache", "memory", "--cache-dtype", "float32")
    assert equal(exact, train(parts, tmp_path / "off", *options, "--cache", "off")) == is_equal


def test_the_backbone_runs_once_for_each_view(
    parts: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    compute = Detector.frozen_features

    def counted(self: Any, images: Any, *args: Any, **options: Any) -> Any:
        counts.append(len(images))
        return compute(self, images, *args, **options)

    monkeypatch.setattr(Detector, "frozen_features", counted)
    train(parts, tmp_path / "two", *FROZEN)
    train(parts, tmp_path / "none", *FROZEN, "--epochs", "1")
    once = 2 + 4 * 2 + 2  # one image twice for the measurement, four images in two views, two validation images
    assert sum(counts) == 2 * once
    counts.clear()
    train(parts, tmp_path / "off", *FROZEN, "--cache", "off")
    assert sum(counts) > 2 * 4  # control


def test_evaluate_returns_the_metrics_of_the_run(cached: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(cached), "--output", str(tmp_path / "e")]) == 0
    assert (tmp_path / "e" / "metrics.json").read_text() == (cached / "metrics.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("options", [FROZEN, PROBE], ids=["cached", "linear probe"])
def test_a_run_resumed_at_any_checkpoint_ends_with_the_same_bits(
    options: tuple[str, ...], parts: Path, train: Train, small: tuple[str, ...], tmp_path: Path
) -> None:
    every = (*options, "--checkpoint-every", "1", "--keep-checkpoints", "20")
    whole = train(parts, tmp_path / "whole", *every)
    epochs = {load_checkpoint(path).position.epoch for path in whole.glob("last-*.safetensors")}
    assert len(epochs) >= 2
    for number, path in enumerate(sorted(whole.glob("last-*.safetensors"))):
        again = tmp_path / f"again-{number}"
        left_out = ["finished.json", *(file.name for file in whole.glob("last*"))]
        shutil.copytree(whole, again, ignore=lambda *_, names=left_out: names)
        shutil.copy(path, again / "last.safetensors")
        assert main(["train", "--resume", str(again)]) == 0
        assert equal(again, whole)


@pytest.mark.slow
def test_linear_probe_then_fine_tuning(
    parts: Path, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(parts, tmp_path / "run", *PROBE, "--lr", "0.002", "--finetune-lr-mult", "0.5", "--freeze", "none")
    printed = capsys.readouterr().out
    assert "linear probe: 1 epochs of the heads on the frozen backbone" in printed
    assert (
        "fine-tuning: 2 epochs of all parts that --freeze none leaves trainable, at 0.5 times the learning rate"
        in printed
    )
    assert printed.count("cache: ") == 1
    assert load_checkpoint(run / "last.safetensors").position.epoch == 3
    probe = train(parts, tmp_path / "probe", "--freeze", "backbone", "--epochs", "1", *PROBE[-2:], "--lr", "0.002")
    tuned, probed = (load_checkpoint(folder / "last.safetensors").weights for folder in (run, probe))
    key = next(name for name in tuned if name.startswith("backbone.body") and tuned[name].ndim == 4)
    assert not torch.equal(tuned[key], probed[key])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--freeze", "none", "--cache", "memory"), "--cache memory: only features of a frozen backbone can be cached"),
        (("--freeze", "backbone", "--cached-views", "-1"), "--cached-views -1: it must be at least 0"),
        (("--cache-limit", "0"), "--cache-limit 0: it must be a number above 0"),
        ((*PROBE, "--linear-probe-epochs", "0"), "--linear-probe-epochs 0: it must be at least 1"),
        ((*PROBE, "--linear-probe-epochs", "3"), "--linear-probe-epochs 3 of 3 leaves none for fine-tuning"),
        (
            (*PROBE, "--freeze", "backbone"),
            "--freeze backbone: after the linear probe more than the heads must be trainable",
        ),
        ((*PROBE, "--patience", "2"), "--patience 2 does not work with --linear-probe-epochs"),
    ],
)
def test_invalid_options(
    options: tuple[str, ...],
    message: str,
    parts: Path,
    small: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = ["train", str(parts), "--output", str(tmp_path / "run"), *small, *options]
    if "it must be" in message:  # found when the command line is read
        with pytest.raises(SystemExit):
            main(call)
    else:
        assert main(call) == 1
    assert message in capsys.readouterr().err


def test_a_step_that_is_not_finite_is_saved_with_its_features(
    parts: Path, small: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    rounded = FeatureStore.rounded

    def infinite(self: Any, features: Any) -> Any:
        result = rounded(self, features)
        for tensor in result.maps.values():
            tensor[...] = torch.inf
        return result

    monkeypatch.setattr(FeatureStore, "rounded", infinite)
    run = tmp_path / "run"
    assert main(["train", str(parts), "--output", str(run), *small, *FROZEN]) == 1
    assert "not finite" in capsys.readouterr().err
    assert main(["train", "--replay", str(run / "not-finite.safetensors")]) == 0
    assert "x 64  inf to inf" in capsys.readouterr().out
