"""The model card of a run: its content, its place in an exported file, and what ``describe`` prints of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from detseg.cli import main
from detseg.options import DescribeConfig
from detseg.recipes.describe import describe
from detseg.runtime.reporter import silent
from detseg.training.model_card import read_card


@pytest.fixture(scope="module")
def run(parts: Path, train: Any, no_images: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(parts, tmp_path_factory.mktemp("card") / "run", "--lr", "1e-3")  # type: ignore[no-any-return]


def without_speed(card: str) -> list[str]:
    start, end = card.index("## Speed and size"), card.index("## Licences")
    return [card[:start], card[end:]]


def test_the_card_says_what_the_model_is_and_is_not(run: Path) -> None:
    card = (run / "card.md").read_text()
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [
        "# Model card: maskrcnn_mobilenet_v3_large_fpn_slim, segment",
        *("## Data", "## Metrics", "## Thresholds", "## Speed and size on the machine of the training"),
        *("## Licences", "## Limits"),
    ]
    assert hashlib.sha256((run / "best.safetensors").read_bytes()).hexdigest() in card
    assert "| classes | 3: bolt, nut, washer |" in card
    assert "| starting weights | none |" in card
    assert "| images, train | 4 |\n| images, val | 2 |" in card
    assert "| class | train | val |" in card
    assert "Validation split, which selected the best epoch:" in card
    assert "The val split has only 2 images: its metrics are uncertain." in card
    assert "| most detections per image | 20 |" in card
    assert str(run) not in card, "a card is shared"


def test_the_same_run_has_the_same_card_but_for_its_speed(
    run: Path, parts: Path, train: Any, no_images: None, tmp_path: Path
) -> None:
    again = train(parts, tmp_path / "again", "--lr", "1e-3")
    other = train(parts, tmp_path / "other", "--lr", "2e-3")
    cards = [without_speed((folder / "card.md").read_text()) for folder in (run, again, other)]
    assert cards[0] == cards[1]
    assert cards[0] != cards[2], "control"


def test_describe_prints_the_card_of_the_checkpoint_that_it_describes(run: Path, tmp_path: Path) -> None:
    card = read_card(run)
    described = describe(DescribeConfig(model=str(run)), reporter=silent())
    assert described.card == card != ""
    assert described.to_dict()["card"] == card
    assert "\n".join(described.lines(1)).endswith(card.rstrip("\n"))
    assert read_card(run / "best.safetensors") == card
    (tmp_path / "card.md").write_text(card)
    (tmp_path / "other.safetensors").write_bytes(b"other")
    assert read_card(tmp_path / "other.safetensors") == "", "control: a card of another file"


def test_the_exported_file_has_the_card(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="export needs the package onnx")
    pytest.importorskip("onnxruntime", reason="exported files need the package onnxruntime")
    file = tmp_path / "model.onnx"
    assert main(["export", str(run), "--output", str(file)]) == 0
    capsys.readouterr()
    assert main(["describe", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"] == read_card(run)
    assert main(["describe", str(file)]) == 0
    assert "## Limits" in capsys.readouterr().out
