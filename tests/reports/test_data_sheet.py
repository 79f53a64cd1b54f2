"""The sheet of a data set: rare classes, smallest and largest objects, and its page."""

from __future__ import annotations

import base64
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.annotations import AnnotationTable
from detseg.annotations.builder import TableBuilder
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.reports.data_sheet import image_cards, object_cards
from detseg.reports.sheet_page import write_page
from detseg.reports.shown_images import PER_CLASS, extreme_objects, random_rows, rows_per_class
from detseg.runtime.reporter import Event, Reporter, silent

NAMES = ["common", 'ra<re> & "odd"', "never"]
IMAGES = 120
ODD = "0.png" if os.name == "nt" else "</figcaption><script>x.png"  # Windows has no such names


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> AnnotationTable:
    """120 images with a common object each, of 10 to 40 pixels; one image in val has the rare class."""
    folder = tmp_path_factory.mktemp("data")
    builder = TableBuilder(ClassMap.from_names(NAMES), folder, source="set <script>alert(1)</script>")
    cv2.imwrite(str(folder / "a.png"), np.full((60, 80, 3), 128, np.uint8))
    for number in range(IMAGES):
        name = f"{number}.png" if number else ODD
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "a.png", folder / name)
        builder.add_image(name, (60, 80), split="train" if number < 100 else "val")
        builder.add_instance([5, 5, 10 + number / 4, 10 + number / 4], 1)
        if number == 110:
            builder.add_instance([50, 20, 10, 30], 2)
            builder.add_instance([0, 0, 80, 60], 1, iscrowd=True)
    return builder.build()


def test_rare_classes_are_shown(table: AnnotationTable) -> None:
    rows = rows_per_class(table, seed=0)
    assert list(rows) == [2, 1], "the rarest first, and none of a class without images"
    assert rows[2] == [110]
    assert [str(table.split[row]) for row in rows[1]] == ["train"] * PER_CLASS + ["val"] * PER_CLASS
    assert rows == rows_per_class(table, seed=0) != rows_per_class(table, seed=1)
    assert 110 not in random_rows(table, 16, 0), "control: random images miss it"


def test_classes_of_images() -> None:
    builder = TableBuilder(ClassMap.from_names(["a", "b"]), "", source="set")
    for number in range(9):
        builder.add_image(f"{number}.png", (60, 80), class_index=int(number == 4))
    assert rows_per_class(builder.build(), seed=0)[2] == [4]


def test_the_number_of_images_is_limited(table: AnnotationTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detseg.reports.shown_images.MOST_IMAGES", 3)
    assert {label: len(rows) for label, rows in rows_per_class(table, seed=0).items()} == {2: 1, 1: 2}
    monkeypatch.setattr("detseg.reports.shown_images.MOST_IMAGES", 1)
    events: list[Event] = []
    assert len(image_cards(table, 16, 0, per_class=True, reporter=Reporter(events.append))) == 1
    assert "the 1 rarest of 2 classes" in events[0].text


def test_extreme_objects(table: AnnotationTable) -> None:
    shown = extreme_objects(table, 2)
    assert [(item.row, item.index, item.kind) for item in shown] == [
        (0, 0, "smallest"), (1, 0, "smallest"), (119, 0, "largest"), (118, 0, "largest"),
    ]  # fmt: skip
    assert len(extreme_objects(table.subset([0, 1, 2]), 2)) == 3, "none twice"
    assert extreme_objects(table.subset([])) == []


class Page(HTMLParser):
    """Elements of a page, and whether they are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1], data.strip()))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page(table: AnnotationTable, tmp_path: Path) -> None:
    cards = [*image_cards(table, 16, 0, per_class=True, reporter=silent()), *object_cards(table)]
    for name in ("a.html", "b.html"):
        write_page(tmp_path / name, table, cards)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert (tmp_path / "b.html").read_text(encoding="utf-8") == text, "the same bytes"
    page = Page(text)
    outside = re.sub(r"data:image/jpeg;base64,[^\"]*", "", text).replace("http-equiv", "")
    assert not re.search(r"https?|url\(|@import|//", outside), "no other file"
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in page.of("img"))
    assert len(page.of("script")) == 1, "names of files and classes are no code"
    figures = page.of("figure")
    assert len(figures) == len(cards) == 1 + 2 * PER_CLASS + 16
    options = [text for tag, text in page.texts if tag == "option"]
    assert options == ["all", *NAMES[:2], "all", "train", "val", "all", "images", "smallest objects", "largest objects"]
    rare = [card for card in figures if "2" in (card["data-labels"] or "").split()]
    assert [card["data-split"] for card in rare] == ["val"]
    assert sum(card["data-kind"] == "smallest" for card in figures) == 8
    values = {(option["value"] or "") for option in page.of("option")}
    assert {card["data-split"] for card in figures} | {"1", "2", "smallest", "largest", "", "*"} == values
    source = page.of("img")[0]["src"] or ""
    image = cv2.imdecode(np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8), 1)
    assert image.shape == (60, 80, 3)


def test_objects_are_drawn_with_their_surroundings(table: AnnotationTable) -> None:
    smallest = object_cards(table)[0]
    assert smallest.caption == f"smallest, 10 x 10 pixels, common: {Path(ODD).name}"
    assert max(smallest.image.shape) == 320
    assert (smallest.image == (213, 94, 0)).all(axis=-1).sum() > 200, "its box"


@pytest.mark.parametrize("options", [[], ["--per-class"]])
def test_inspect_writes_sheet_and_page(parts: Path, tmp_path: Path, options: list[str]) -> None:
    assert main(["inspect", str(parts), "--output", str(tmp_path), "--records", "2", *options]) == 0
    page = Page((tmp_path / "sheet.html").read_text(encoding="utf-8"))
    kinds = [card["data-kind"] for card in page.of("figure")]
    assert kinds.count("") == 2 if not options else kinds.count("") > 6
    assert cv2.imread(str(tmp_path / "sheet.jpg")) is not None
