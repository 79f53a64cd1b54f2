"""Test that transfer learning helps: ImageNet features against random ones, on real photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg import TrainConfig, fit, read
from detseg.annotations import write_split

FOLDS = 5


@pytest.mark.slow
def test_pretrained_features_beat_random_ones_by_20_points(shared_data: Path, rows: Any, tmp_path: Path) -> None:
    table = read(shared_data / "flowers")
    fold_of_image = np.zeros(len(table), np.int64)  # every class is distributed over all folds
    classes = table.class_index[:, 0]
    for index in np.unique(classes):
        members = np.random.default_rng(0).permutation(np.flatnonzero(classes == index))
        fold_of_image[members] = (np.arange(len(members)) + index) % FOLDS
    scores: dict[str, list[float]] = {"imagenet": [], "random": []}
    for fold in range(FOLDS):
        folds = {
            "train": table.subset(np.flatnonzero(fold_of_image != fold)),
            "val": table.subset(np.flatnonzero(fold_of_image == fold)),
        }
        write_split(folds, tmp_path / f"fold{fold}.json")
        for name, weights in (("imagenet", str(shared_data / "weights/mobilenet_v2_fp16.pth")), ("random", "none")):
            run = fit(
                TrainConfig(
                    data=str(shared_data / "flowers"),
                    output=str(tmp_path / f"{name}{fold}"),
                    split_file=str(tmp_path / f"fold{fold}.json"),
                    model="mobilenet_v2",
                    weights=weights,
                    freeze="backbone",
                    image_size=128,
                    augment="flip",
                    epochs=6,
                    batch_size=16,
                    optimizer="adamw",
                    lr=1e-2,
                    val_loss=False,
                    workers=0,
                    device="cpu",
                )
            )
            scores[name].append(
                rows(run.folder)[-1]["accuracy"]
            )  # the last epoch: no model selection on the validation split
    sizes = np.bincount(fold_of_image)
    pretrained, random = (float(np.average(scores[name], weights=sizes)) for name in ("imagenet", "random"))
    assert sizes.tolist() == [16] * FOLDS
    assert pretrained >= random + 0.2, f"ImageNet {pretrained:.3f}, random {random:.3f}: {scores}"
    assert pretrained > 0.6
    assert random < 0.6  # control: untrained features do not distinguish five classes of equal frequency
