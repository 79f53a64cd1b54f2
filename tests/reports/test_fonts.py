"""Names in any script: a font that has the characters is used; without one it is said once which to install."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.classes import ClassMap
from detseg.reports import fonts, text
from detseg.reports.confusion import write_confusion
from detseg.reports.draw import draw, draw_class
from detseg.reports.fonts import can_draw, plot_families, plot_text, report_missing_glyphs
from detseg.reports.sheet import sheet
from detseg.reports.text import line_height, text_block, text_mask, text_size
from detseg.runtime.reporter import Event, Reporter, silent
from detseg.structures import ClassPrediction

KOREAN, RUSSIAN = "볼트", "Болт"
LONG = "a class with a name that is longer than most images are wide"
CACHES = (fonts.font_for, fonts._missing, fonts._best_file, fonts._has_glyph)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """``installed(file, ...)``: only Pillow's own font and these files exist."""
    real_font = fonts._font

    def only(*files: str) -> None:
        monkeypatch.setattr(fonts, "_font", lambda size, file: real_font(size, file) if file in ("", *files) else None)

    monkeypatch.setattr(fonts, "_reported", set())
    for cache in CACHES:
        cache.cache_clear()
    yield only
    monkeypatch.undo()
    for cache in CACHES:
        cache.cache_clear()


def events_of(action: Callable[[Reporter], object]) -> list[Event]:
    events: list[Event] = []
    action(Reporter(events.append))
    return events


def test_cyrillic_is_drawn_where_dejavu_is_installed(installed: Callable[..., None]) -> None:
    pytest.importorskip("matplotlib")
    installed(fonts.PLOT_FONT)
    assert can_draw(RUSSIAN)
    assert can_draw("naïve café")
    assert not can_draw(KOREAN)
    assert fonts.font_for(RUSSIAN, 20)[1] == RUSSIAN
    assert fonts.font_for("И\u0306", 20)[1] == "Й"  # composed


def test_without_a_font_characters_are_escaped(installed: Callable[..., None]) -> None:
    installed()
    assert not can_draw(RUSSIAN)
    assert can_draw("bolt")
    assert fonts.font_for("a " + KOREAN, 20)[1] == r"a  \ubcfc\ud2b8"
    np.testing.assert_array_equal(text_mask(KOREAN, 20), text_mask(r"\ubcfc\ud2b8", 20))


def test_the_package_is_reported_once(installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    installed()
    monkeypatch.setattr("sys.platform", "linux")
    report_missing_glyphs([KOREAN], silent())  # nobody is told
    (event,) = events_of(lambda reporter: report_missing_glyphs([KOREAN, "nut"], reporter))
    assert event.kind == "warning"
    assert "1 name (볼트)" in event.text
    assert "apt install fonts-noto-cjk)" in event.text
    assert events_of(lambda reporter: report_missing_glyphs([KOREAN], reporter)) == []
    (event,) = events_of(lambda reporter: report_missing_glyphs([RUSSIAN], reporter))
    assert "apt install fonts-dejavu)" in event.text
    monkeypatch.setattr("sys.platform", "darwin")
    (event,) = events_of(lambda reporter: report_missing_glyphs(["ไทย"], reporter))
    assert "Install the font Noto Sans from" in event.text


def test_drawings_report_and_write_the_label_before_an_escaped_name(installed: Callable[..., None]) -> None:
    installed()
    class_map, image = ClassMap(("nut", KOREAN)), np.full((100, 300, 3), 90, np.uint8)
    content = {"boxes": np.array([[20.0, 40, 90, 90]]), "labels": np.array([2])}
    assert len(events_of(lambda reporter: draw(image, content, class_map, reporter=reporter))) == 1
    escaped_map = ClassMap(("nut", r"2: \ubcfc\ud2b8"))
    np.testing.assert_array_equal(
        draw(image, content, class_map, reporter=silent()), draw(image, content, escaped_map, reporter=silent())
    )
    fonts._reported.clear()
    prediction = ClassPrediction(np.array([0.2, 0.8], np.float32))
    assert len(events_of(lambda reporter: draw_class(image, prediction, class_map, reporter=reporter))) == 1
    fonts._reported.clear()
    assert len(events_of(lambda reporter: sheet([image], [f"{KOREAN}.jpg"], reporter=reporter))) == 1
    ascii_map = ClassMap(("nut", "bolt"))  # control
    fonts._reported.clear()
    assert events_of(lambda reporter: draw(image, content, ascii_map, reporter=reporter)) == []


def test_plots(installed: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    installed(fonts.PLOT_FONT)
    assert plot_text("cat Ä ж") == "cat Ä ж"
    assert plot_text("猫") == "\\u732b"
    assert plot_text("a $m$") == r"a \$m\$"
    assert plot_families(["a", "ж", "猫"]) == ["DejaVu Sans"]
    names = ["$a$ ^ $", KOREAN, RUSSIAN]
    assert write_confusion(names, np.eye(3, dtype=int), tmp_path / "a.png")


def test_plots_use_installed_fonts(installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib import get_data_path

    other = str(Path(get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf")
    letter = "\u29eb"  # a sign that STIX has
    monkeypatch.setattr(fonts, "FONT_FILES", (other,))
    monkeypatch.setattr(fonts, "PLOT_FONT", "")
    installed(other)
    assert plot_text(letter) == letter
    assert plot_families([letter]) == ["DejaVu Sans", "STIXGeneral"]


@pytest.mark.parametrize(("height", "width"), [(480, 640), (120, 160), (64, 64), (40, 300)])
@pytest.mark.parametrize("name", ["nut", LONG, "x" * 300, "볼" * 200, "snake_case_" * 9, "Болт " * 20])
def test_blocks_fit(name: str, height: int, width: int) -> None:
    size = text_size(height, width)
    block = text_block(name, "0.93", size, width - 4, height // 2)
    assert block.shape[1] <= width - 4
    assert block.shape[0] <= max(height // 2, line_height(7))
    assert (block > 0).any()


def lines_of(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> list[str]:
    """The lines that ``text_block`` renders; its font needs double spaces."""
    lines: list[str] = []

    def rendered(line: str, *_: Any) -> np.ndarray:
        lines.append(line.replace("  ", " "))
        return np.zeros((1, 1), np.uint8)

    monkeypatch.setattr(text, "_rendered", rendered)
    text_block(*arguments)
    return lines


@pytest.mark.parametrize(
    ("name", "space", "lines"),
    [
        (LONG, (10, 1000, 100), [f"{LONG} 0.93"]),
        (LONG, (10, 200, 100), ["a class with a name that is longer than", "most images are wide 0.93"]),
        (LONG, (7, 60, 18), ["a class with a", "name that i... 0.93"]),
        (LONG, (7, 60, 9), ["a class wi... 0.93"]),
        ("snake_case_name", (10, 50, 100), ["snake_", "case_", "name", "0.93"]),
        ("bolts and nuts", (7, 26, 9), ["bolts..."]),  # the score is left out before the name
    ],
)
def test_a_long_name_is_wrapped_and_shortened_only_where_it_does_not_fit(
    name: str, space: tuple[int, int, int], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines_of(monkeypatch, name, "0.93", *space) == lines


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (5, 2)])
def test_no_space_at_all(size: tuple[int, int]) -> None:
    block = text_block(LONG, "0.93", 7, size[1], size[0])
    assert block.shape[0] == line_height(7)
    assert block.shape[1] <= size[1]
