"""Test runs that start from weights of other classes: AP above zero before the first step, and ``--class-transfer``."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from detseg.annotations import table_from_dataset
from detseg.annotations.from_options import load_table
from detseg.checkpoints import save_checkpoint
from detseg.classes import ClassMap
from detseg.cli import main, parse
from detseg.datasets import collate_fn
from detseg.engine import evaluate
from detseg.engine.evaluator import make_evaluator
from detseg.models import MODELS, build_model, describe
from detseg.models.create import Created, create_model
from detseg.models.weights.published import cache_path
from detseg.models.weights.starting_weights import StartingWeights
from detseg.runtime.machine import MachineFacts
from detseg.training.fit import new_model
from detseg.training.make_plan import make_plan

SLIM = "maskrcnn_mobilenet_v3_large_fpn_slim"
PUBLISHED = MaskRCNN_ResNet50_FPN_Weights.COCO_V1


@pytest.fixture(scope="module")
def weights(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a randomly initialized checkpoint for bolt, nut and washer."""
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    save_checkpoint(path, build_model(describe(SLIM, ClassMap(("washer", "nut", "bolt")), weights="none")))
    return str(path)


def test_class_transfer_on_the_command_line(parts: Path, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(parts), "--model", SLIM, "--weights", weights, "--task", "segment"]
    for options, expected in (
        ((), "every class is initialized from a pretrained class: bolt <- bolt, nut <- nut, washer <- washer"),
        (
            ("--class-transfer", "nut=washer,bolt="),
            "nut <- washer (--class-transfer), washer <- washer, bolt randomly initialized (--class-transfer)",
        ),
    ):
        config = parse("train", [*arguments, *options])
        table = load_table(config)
        new_model(table, make_plan(config, table, table, MachineFacts("cpu")))
        assert f"heads: {expected}" in capsys.readouterr().out


def test_class_transfer_in_a_file(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('class_transfer = ["nut=washer", "bolt="]')
    assert parse("train", [str(parts), "--config", str(tmp_path / "a.toml")]).class_transfer == ["nut=washer", "bolt="]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("nut=washr", "the weights have no class 'washr'; their classes are washer, nut, bolt"),
        ("screw=nut", "the data has no class 'screw'; its classes are bolt, nut, washer"),
        ("nut", "--class-transfer nut: use CLASS=PRETRAINED CLASS"),
    ],
)
def test_unknown_class_names(
    parts: Path,
    weights: str,
    tmp_path: Path,
    small: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    pair: str,
    message: str,
) -> None:
    arguments = [
        "train",
        str(parts),
        "--output",
        str(tmp_path / "run"),
        *small,
        "--weights",
        weights,
        "--class-transfer",
        pair,
    ]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


# A replacement for the published weights: trained on eight objects, with the label rows of COCO.

Sample = tuple[Tensor, dict[str, Tensor]]
PERSON, DOG = 1, 18


def images(labels: dict[int, int]) -> list[Sample]:
    """Return four images of a tall red box and a wide blue one; ``labels``: PERSON and DOG -> label."""
    samples: list[Sample] = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        image = rng.integers(90, 130, (96, 96, 3)).astype(np.uint8)
        masks, boxes = np.zeros((2, 96, 96), np.uint8), []
        for row, (colour, width, height) in enumerate((((220, 30, 30), 24, 36), ((30, 30, 220), 36, 24))):
            x, y = 4 + 46 * row + int(rng.integers(0, 7)), int(rng.integers(4, 50))
            image[y : y + height, x : x + width] = colour
            masks[row, y : y + height, x : x + width] = 1
            boxes.append([x, y, x + width, y + height])
        target = {
            "boxes": torch.tensor(boxes, dtype=torch.float32),
            "labels": torch.tensor([labels[PERSON], labels[DOG]]),
            "masks": torch.from_numpy(masks),
            "image_id": torch.tensor(seed + 1),
            "area": torch.tensor([864.0, 864.0]),
            "iscrowd": torch.zeros(2, dtype=torch.uint8),
        }
        samples.append((torch.from_numpy(image).permute(2, 0, 1), target))
    return samples


def box_and_mask_ap(created: Created, samples: list[Sample]) -> tuple[float, float]:
    """Return AP of boxes and of masks, before the first step."""
    table = table_from_dataset(samples, created.model.description.class_map)
    loader: Any = torch.utils.data.DataLoader(samples, 2, collate_fn=collate_fn)  # type: ignore[arg-type]
    evaluator = make_evaluator(table, "segment", created.model.preprocessing)
    metrics = evaluate(created.model, loader, "cpu", evaluator=evaluator)
    return metrics.scalars()["bbox_AP"] or 0.0, metrics.scalars()["segm_AP"] or 0.0


@pytest.mark.slow
def test_ap_above_zero_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(MODELS, SLIM, replace(MODELS[SLIM], coco=PUBLISHED))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **_: torch.load(cache_path(url)))
    torch.manual_seed(0)
    classes = StartingWeights.open("coco", SLIM).classes
    assert classes is not None
    rows = ClassMap(tuple(name or f"no class {row}" for row, name in enumerate(classes.names) if row))
    size: Any = {"image_size": 96, "rois_per_image": 32, "detections_per_image": 10}
    coco: Any = build_model(describe(SLIM, rows, weights="none", **size)).train()
    optimizer = torch.optim.AdamW(coco.parameters(), lr=1e-3)
    samples = images({PERSON: PERSON, DOG: DOG})
    for _ in range(100):
        loss = torch.stack(
            list(coco([image for image, _ in samples], [target for _, target in samples]).values())
        ).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(coco.parameters(), 10)
        optimizer.step()
    cache_file = cache_path(PUBLISHED.url)
    cache_file.parent.mkdir(parents=True)
    torch.save(coco.state_dict(), cache_file)
    save_checkpoint(tmp_path / "mine.safetensors", coco)
    shutil.copy(cache_file, tmp_path / "nameless.pth")

    def start(names: list[str], weights: str = "coco", **options: Any) -> tuple[float, float]:
        created = create_model(SLIM, names, weights=weights, **size, **options)
        label = {PERSON: 1, DOG: len(names)}  # the first and the last
        return box_and_mask_ap(created, images(label))

    same = start(["pedestrian", "dogs"])
    assert min(same) > 0.5
    assert start(["person", "dog"]) == same
    assert start(["worker", "dog"], class_transfer={"worker": "person"}) == same
    assert start(["pedestrian", "dogs"], str(tmp_path / "mine.safetensors")) == same
    assert min(start(["person", "bolt", "cat", "nut", "dog"])) > 0.5  # new classes between them
    numbers = {"worker": str(PERSON), "hound": str(DOG)}
    assert start(["worker", "hound"], str(tmp_path / "nameless.pth"), class_transfer=numbers) == same
    # controls: randomly initialized heads match by chance only, and the rows of other classes do not match
    for weights in ("coco", str(tmp_path / "nameless.pth")):
        chance = [max(start(["worker", "hound"], weights)) for _ in range(5)]
        assert sum(chance) / len(chance) < min(same) / 2
    assert max(start(["person", "dog"], class_transfer={"person": "dog", "dog": "person"})) < 0.2
