"""The training accuracy: from the logits of the training forward pass, summed over batches, processes and resumes."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import torch

from detseg.classes import ClassMap, LabelField, joined
from detseg.engine.correct_counts import CountsCorrect, batch_counts
from detseg.engine.train import EpochTotals, Step, train_one_epoch
from detseg.models import OwnClassifier, build_model, describe
from detseg.training.metrics_log import line, row

pytestmark = pytest.mark.usefixtures("no_images")


class Fixed(torch.nn.Module):
    """Logits that depend on the mean of an image only: the class is its first digit."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        level = batch.mean(dim=(1, 2, 3))[:, None]
        return -self.scale * (level - torch.tensor([0.0, 0.5, 1.0])).square()


def fixed_model() -> OwnClassifier:
    return OwnClassifier(Fixed(), ["dark", "middle", "light"], image_size=4, mean=(0, 0, 0), std=(1, 1, 1))


def batch(levels: list[float], classes: list[int]) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    return [torch.full((3, 4, 4), v) for v in levels], [{"class_index": torch.tensor(c)} for c in classes]


def test_the_counts_of_a_forward_pass() -> None:
    model = fixed_model().train()
    assert isinstance(model, CountsCorrect)
    assert batch_counts(model) == {}
    losses: Any = model(*batch([0.0, 0.1, 0.9], [0, 1, 2]))
    assert list(losses) == ["loss_classifier"], "the result is the losses only"
    assert batch_counts(model) == {"accuracy": (2, 3)}
    model(*batch([0.5], [1]))
    assert batch_counts(model) == {"accuracy": (1, 1)}, "of the last batch"
    model.eval()([torch.zeros((3, 4, 4))])
    assert batch_counts(model) == {"accuracy": (1, 1)}, "prediction does not count"
    assert batch_counts(torch.nn.Linear(1, 1)) == {}


def test_images_without_a_label_do_not_count() -> None:
    fields = (LabelField("colour", ClassMap(("red", "blue"))), LabelField("shape", ClassMap(("disc", "ring", "star"))))
    torch.manual_seed(0)
    model: Any = build_model(describe("resnet18", joined(fields), weights="none", image_size=33, label_fields=fields))
    images = list(torch.rand((4, 3, 33, 33)))
    index = torch.tensor([[0, -1], [1, -1], [-1, -1], [0, -1]])
    model.train()(images, [{"class_index": row} for row in index])
    counts = batch_counts(model)
    assert list(counts) == ["accuracy_colour", "accuracy_shape"]
    assert counts["accuracy_colour"][1] == 3
    assert counts["accuracy_shape"] == (0, 0)
    totals = EpochTotals()
    totals.add(Step(1, 4, {"loss": 1.0}, correct_counts=counts))
    assert totals.stats().accuracies["accuracy_shape"] is None


def test_the_accuracy_of_an_epoch_is_over_images_not_over_batches() -> None:
    samples = [(images[0], targets[0]) for images, targets in (
        batch([level], [index]) for level, index in ((0.0, 0), (0.5, 1), (1.0, 2), (1.0, 0), (0.1, 1)))]  # fmt: skip
    loader: Any = torch.utils.data.DataLoader(samples, 2, collate_fn=lambda items: tuple(zip(*items, strict=True)))  # type: ignore[arg-type]
    for accumulate in (1, 2, 3):
        model = fixed_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        stats = train_one_epoch(model, optimizer, loader, "cpu", 1, accumulate=accumulate)
        assert stats.accuracies == {"accuracy": 3 / 5}, "the mean over batches would be 1/2"


def test_totals_of_several_processes_and_of_a_checkpoint() -> None:
    parts = [EpochTotals(images=4, correct_counts={"accuracy": (3, 4)}), EpochTotals(images=4)]
    parts[1].correct_counts["accuracy"] = (1, 4)
    assert EpochTotals.of_all(parts).stats().accuracies == {"accuracy": 0.5}
    saved = json.loads(json.dumps([asdict(part) for part in parts]))
    restored = msgspec.convert(saved, tuple[EpochTotals, ...])
    assert restored == tuple(parts)
    del saved[0]["correct_counts"]
    assert msgspec.convert(saved[0], EpochTotals).correct_counts == {}, "a checkpoint without the field"
    skipped = EpochTotals()
    skipped.add(Step(1, 4, {"loss": 1.0}, updated=False, correct_counts={"accuracy": (3, 4)}))
    assert skipped.correct_counts == {}, "a skipped update does not count"


def test_counting_does_not_change_the_loss_or_the_random_numbers() -> None:
    results = []
    for counting in (True, False):
        torch.manual_seed(0)
        model: Any = build_model(describe("mobilenet_v3_small", ClassMap(("a", "b")), weights="none", image_size=64))
        if not counting:
            model.forward = lambda images, targets, model=model: _losses_only(model, images, targets)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        images = [torch.full((3, 64, 64), value) for value in (0.1, 0.9)]
        loader: Any = [(images, [{"class_index": torch.tensor(0)}, {"class_index": torch.tensor(1)}])]
        torch.manual_seed(1)
        for images, targets in loader * 2:
            optimizer.zero_grad()
            model.train()(images, targets)["loss_classifier"].backward()
            optimizer.step()
        results.append((model.state_dict(), torch.get_rng_state()))
    (first, first_random), (second, second_random) = results
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first_random, second_random)


def _losses_only(model: Any, images: Any, targets: Any) -> dict[str, torch.Tensor]:
    logits = model.head(model.pooled_features(images))
    classes = torch.stack([target["class_index"] for target in targets])
    return {"loss_classifier": torch.nn.functional.cross_entropy(logits, classes)}


def test_a_run_writes_and_prints_it(classify: Any, tmp_path: Path, rows: Any, capsys: Any) -> None:
    run = classify(tmp_path / "run", "--epochs", "3", "--accumulate", "2", "--eval-epochs", "3")
    accuracies = [row["train_accuracy"] for row in rows(run)]
    images = json.loads((run / "split.json").read_text())["splits"]["train"]
    assert all(accuracy * len(images) == pytest.approx(round(accuracy * len(images))) for accuracy in accuracies)
    assert 0 <= min(accuracies) <= max(accuracies) <= 1
    printed = [text for text in capsys.readouterr().out.splitlines() if text.startswith("epoch ")]
    for text, accuracy in zip(printed, accuracies, strict=True):
        assert f"train accuracy {accuracy:.3f}" in text


def test_label_fields_have_one_each(classify: Any, tmp_path: Path, rows: Any, capsys: Any) -> None:
    data = tmp_path / "data"
    data.mkdir()
    names = [(f"{n}.png", ("red", "green")[n % 2], ("old", "new")[n // 2 % 2] if n else "") for n in range(12)]
    for number, (name, *_) in enumerate(names):
        cv2.imwrite(str(data / name), np.full((48, 48, 3), 20 * number, np.uint8))
    with (data / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "colour", "age"), *names])
    run = classify(tmp_path / "run", data=data)
    assert {"train_accuracy_colour", "train_accuracy_age"} <= set(rows(run)[0])
    assert "train_accuracy" not in rows(run)[0]
    assert "train accuracy 0." in capsys.readouterr().out


def test_detectors_have_none(parts: Path, train: Any, tmp_path: Path, rows: Any, capsys: Any) -> None:
    run = train(parts, tmp_path / "run")
    assert not [key for key in rows(run)[0] if "accuracy" in key]
    assert "train accuracy" not in capsys.readouterr().out


def test_lines() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.1)
    totals = EpochTotals({"loss": 4.0}, 4, 1, 1.0, {f"accuracy_{name}": (n, 4) for n, name in enumerate("abc")})
    text = line(row(0, totals.stats(), {}, None, optimizer, 1.0), 2, False)
    assert text == "epoch 1/2: loss 1.000, train accuracy 0.250 (a 0.000, b 0.250, c 0.500), 1 s"
    skipped = row(0, EpochTotals(seconds=1.0).stats(), {}, None, optimizer, 1.0)
    assert line(skipped, 2, False) == "epoch 1/2: no update, 1 s"
