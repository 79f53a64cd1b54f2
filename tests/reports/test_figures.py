"""Figures: what is drawn (lines, labels, colours, marks), readable at the width of a phone, the same bytes twice."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.pr_curve import RECALLS, PrCurve
from detseg.reports.comparison import compare
from detseg.reports.confusion import plot_confusion
from detseg.reports.curves import plot_history
from detseg.reports.figure import COLOURS, _figure_class, figure_png, image_grid
from detseg.reports.image_figures import compared_images, predictions_figure, samples_figure, worst_first
from detseg.reports.palette import colour_of, instance_colour
from detseg.reports.pr_plot import plot_pr
from detseg.structures import ClassPrediction, Prediction

pytest.importorskip("matplotlib")

PHONE = 390
"""Width in pixels of a page on a phone."""
LEAST = 8.5
"""Height in such pixels of the smallest letters."""

ROWS = [
    {"epoch": epoch, "train_loss": 2 / epoch, "val_loss": 3 / epoch, "train_loss_mask": 1 / epoch,
     "train_loss_box_reg": 1 / epoch, "val_loss_mask": 2 / epoch, "bbox_AP": epoch / 10, "bbox_AP50": epoch / 8,
     "lr": 0.1}
    for epoch in (1, 2, 3)
]  # fmt: skip
TWO = ClassMap.from_names(["bolt", "nut"])
ONE = ClassMap.from_names(["cell"])


def curve(name: str, height: float, *, kind: str = "bbox", iou: float = 0.5) -> PrCurve:
    precision = np.where(RECALLS <= 0.6, height, 0.0)
    return PrCurve(kind, iou, name, precision, np.linspace(1, 0.1, 101), 10)


def table(boxes: list[list[float]], labels: list[int], class_map: ClassMap = TWO) -> AnnotationTable:
    builder = TableBuilder(class_map, "", source="set")
    builder.add_image("a.png", (100, 200))
    for box, label in zip(boxes, labels, strict=True):
        builder.add_instance(box, label)
    return builder.build()


def prediction(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Prediction:
    return Prediction(
        (100, 200), np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(scores, np.float32)
    )


GREY = np.full((100, 200, 3), 128, np.uint8)


def figures() -> dict[str, Any]:
    """One of each kind, drawn again at each call."""
    record = table([[10, 10, 40, 40], [120, 20, 50, 50]], [1, 2])
    detections = prediction([[10, 10, 50, 50], [60, 60, 90, 90]], [1, 2], [0.9, 0.8])
    compared = compared_images([GREY], list(record), [detections], TWO)
    target = {"boxes": np.array([[10.0, 10, 50, 50]]), "labels": np.array([1])}
    samples = [(np.moveaxis(GREY, -1, 0), target)] * 3
    return {
        "history": plot_history({"a": ROWS}),
        "runs": plot_history({"a": ROWS, "b": ROWS[:2]}),
        "pr": plot_pr([curve("bolt", 0.9), curve("nut", 0.5), curve("bolt", 0.4, iou=0.75)]),
        "confusion": plot_confusion(["bolt", "nut"], np.array([[5, 1, 0], [0, 4, 2], [1, 0, 0]]), has_background=True),
        "classes": plot_confusion([f"class {i}" for i in range(14)], np.eye(14, dtype=int)),
        "predictions": predictions_figure(compared),
        "samples": samples_figure(samples, TWO),
        "batch": samples_figure(samples, TWO, is_batch=True),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    result = figures()
    for figure in result.values():
        FigureCanvasAgg(figure).draw()
    return result


def texts(figure: Any) -> list[Any]:
    from matplotlib.text import Text

    shown = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    ticks = [label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    return [text for text in shown if text not in ticks or text.get_window_extent().x1 > 0]


def test_letters_are_readable_on_a_phone(drawn: dict[str, Any]) -> None:
    for name, figure in drawn.items():
        scale = PHONE / (figure.get_figwidth() * 72)
        sizes = {text.get_text(): text.get_fontsize() * scale for text in texts(figure)}
        smallest = min(sizes, key=lambda text: sizes[text])
        assert sizes[smallest] >= (LEAST if name != "classes" else 7.5), (name, smallest, sizes[smallest])
    wide = 4 * 4.6  # inches, of the four panels beside each other that curves.png had, with letters of 8 points
    assert 8 * PHONE / (wide * 72) < LEAST, "control"


def test_nothing_is_cut_off(drawn: dict[str, Any]) -> None:
    for name, figure in drawn.items():
        used, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(used.x0, used.y0) >= -0.03, name
        assert used.x1 <= width + 0.03, name
        assert used.y1 <= height + 0.03, name
        assert used.height > 0.85 * height, f"{name}: not much is empty"


def test_two_builds_give_the_same_bytes() -> None:
    first, second = figures(), figures()
    for name in ("confusion", "predictions"):
        assert figure_png(first[name]) == figure_png(second[name]), name
    assert figure_png(first["confusion"]) != figure_png(second["predictions"]), "control"


def test_a_figure_is_shown_in_a_notebook(drawn: dict[str, Any]) -> None:
    data, metadata = drawn["confusion"]._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert metadata == {"width": 480}


def test_history(drawn: dict[str, Any]) -> None:
    panels = {axes.get_title(): axes for axes in drawn["history"].axes}
    assert list(panels) == [
        "loss (lower is better)", "loss terms", "validation metrics (higher is better)", "learning rate",
    ]  # fmt: skip
    losses = [line for line in panels["loss (lower is better)"].lines if len(line.get_xdata())]
    assert [line.get_label() for line in losses] == ["train", "val"]
    assert losses[0].get_ydata().tolist() == [row["train_loss"] for row in ROWS]
    assert losses[0].get_color() != losses[1].get_color()
    legend = [text.get_text() for text in panels["loss terms"].get_legend().get_texts()]
    assert legend == ["mask", "box_reg", "train", "val"], "colours for terms, styles for splits"


def test_several_runs_have_a_colour_each(drawn: dict[str, Any]) -> None:
    axes = drawn["runs"].axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata())]
    assert [len(line.get_xdata()) for line in lines] == [3, 3, 2, 2]
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color() == lines[3].get_color()
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "train", "val"]
    assert len(drawn["runs"].axes) == 3, "without the loss terms"


def test_pr(drawn: dict[str, Any]) -> None:
    first, second = drawn["pr"].axes
    assert first.get_title().startswith("box, IoU 0.50")
    assert second.get_title().startswith("box, IoU 0.75")
    labels = [text.get_text() for text in first.get_legend().get_texts()]
    assert labels == ["mean of 2 classes, AP 0.42", "bolt, AP 0.54", "nut, AP 0.30", "dot: score 0.5"]
    curves = [line for line in first.lines if len(line.get_xdata()) == 101]
    assert len(curves) == 3
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 3
    dots = [line.get_xdata()[0] for line in first.lines if len(line.get_xdata()) == 1]
    assert dots == [pytest.approx(0.55)] * 2, "the last recall whose score is at least 0.5"
    many = plot_pr([curve(f"class {i}", i / 20) for i in range(20)]).axes[0]
    named = [text.get_text() for text in many.get_legend().get_texts()]
    assert named[0].startswith("mean of 20 classes")
    assert [name.split(",")[0] for name in named[1:4]] == ["class 2", "class 1", "class 0"], "the worst"
    assert len([line for line in many.lines if len(line.get_xdata()) == 101]) == 21


def test_confusion_with_background(drawn: dict[str, Any]) -> None:
    (axes,) = drawn["confusion"].axes
    cells = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "5", (0, 1): "1", (1, 1): "4", (1, 2): "2", (2, 0): "1"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["bolt", "nut", "not detected"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bolt", "nut", "no object"]
    title = " ".join(drawn["confusion"].get_suptitle().split())
    assert title == "9 of 12 objects correct, 2 missed, 1 false alarms"


def test_of_many_classes_the_confused_ones_are_shown() -> None:
    matrix = np.eye(30, dtype=int) * 9
    matrix[7, 23] = 4
    (axes,) = plot_confusion([f"c{i}" for i in range(30)], matrix).axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shown) == 14
    assert {"c7", "c23"} <= set(shown)


def boxes_of_colour(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == np.array(colour)).all(axis=-1).sum())


def test_misses_and_false_alarms_are_marked() -> None:
    (record,) = table([[10, 10, 40, 40], [120, 20, 50, 50]], [1, 2])
    right = prediction([[10, 10, 50, 50], [120, 20, 170, 70]], [1, 2], [0.9, 0.8])
    wrong = prediction([[10, 10, 50, 50], [60, 60, 90, 90]], [1, 2], [0.9, 0.8])
    good, bad = (compare(GREY, record, shown, TWO) for shown in (right, wrong))
    assert good.captions == ("2 objects, all detected", "prediction, no false alarm")
    assert bad.captions == ("2 objects, 1 missed", "prediction, 1 false alarm")
    assert (good.is_wrong, bad.is_wrong) == (False, True)
    for before, after in zip(good.images, bad.images, strict=True):
        white = [boxes_of_colour(image, (255, 255, 255)) for image in (before, after)]
        black = [boxes_of_colour(image, (0, 0, 0)) for image in (before, after)]
        assert white[0] == 0 < white[1], "dashes of white and black, which all readers can tell from the class colours"
        assert black[1] > black[0]


def test_a_prediction_has_the_hue_of_its_object_where_there_is_one_class() -> None:
    (record,) = table([[10, 10, 40, 40], [120, 20, 50, 50]], [1, 1], ONE)
    detections = prediction([[120, 20, 170, 70], [10, 10, 50, 50]], [1, 1], [0.9, 0.8])
    truth, shown = compare(GREY, record, detections, ONE).images
    for image in (truth, shown):
        left, right = image[:, :100], image[:, 100:]
        assert boxes_of_colour(left, instance_colour(0)) > 50 > 0 == boxes_of_colour(left, instance_colour(1))
        assert boxes_of_colour(right, instance_colour(1)) > 50 > 0 == boxes_of_colour(right, instance_colour(0))
    two = compare(GREY, record, detections, TWO).images[0]
    assert boxes_of_colour(two, colour_of(1)) > 100, "control: with several classes the colour is that of the class"


def test_the_figure_of_predictions(drawn: dict[str, Any]) -> None:
    axes = drawn["predictions"].axes
    assert len(axes) == 2
    assert [item.get_title(loc="left") for item in axes] == ["2 objects, 1 missed", "prediction, 1 false alarm"]
    assert all(spine.get_visible() for item in axes for spine in item.spines.values()), "a frame: there is a mistake"
    assert "dashed" in drawn["predictions"].get_suptitle()


def test_samples_and_batch(drawn: dict[str, Any]) -> None:
    assert len(drawn["samples"].axes) == 3
    assert drawn["samples"].axes[0].get_title(loc="left") == "1 object, 200 x 100 pixels"
    small = np.zeros((3, 50, 100), np.uint8)
    target = {"class_index": np.array(1)}
    figure = samples_figure([(np.moveaxis(GREY, -1, 0), target), (small, target)], TWO, is_batch=True)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert shown[0].shape[:2] == shown[1].shape[:2], "filled up to the largest"
    assert (shown[1][-1, -1] == 225).all()
    assert (shown[1][0, 0] == 0).all()
    assert figure.axes[1].get_title(loc="left") == "nut, 100 x 50 pixels"
    assert image_grid([], [], "no mistake").get_suptitle() == "no mistake"


def test_worst_images_come_first() -> None:
    builder = TableBuilder(TWO, "", source="set")
    for number in range(4):
        builder.add_image(f"{number}.png", (100, 200), image_id=number)
        for column in range(number):
            builder.add_instance([20.0 * column, 0, 10, 10], 1)
    records = builder.build()
    none = prediction([], [], [])
    assert worst_first(records, dict.fromkeys(range(4), none), TWO) == [(3, 3), (2, 2), (1, 1)]
    builder = TableBuilder(TWO, "", source="set")
    for number, label in enumerate((0, 0, 1, 1)):
        builder.add_image(f"{number}.png", (100, 200), image_id=number, class_index=label)
    classes = {
        number: ClassPrediction(np.array(row, np.float32))
        for number, row in enumerate([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.1, 0.9]])
    }
    assert worst_first(builder.build(), classes, TWO) == [(2, 1), (1, 1)], "the wrong ones, the most certain first"


DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
"""Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB."""


def distance(first: str, second: str, matrix: np.ndarray) -> float:
    """Distance of two colours in CIELAB, as a colour-blind reader sees them."""
    lab = []
    for colour in (first, second):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(matrix @ linear, 0, 1)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
        f = np.cbrt(xyz / np.array([0.9505, 1, 1.089]))
        lab.append(np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])]))
    return float(np.linalg.norm(lab[0] - lab[1]))


@pytest.mark.parametrize("matrix", [DEUTERANOPIA, PROTANOPIA], ids=["deuteranopia", "protanopia"])
def test_colours_of_lines_are_apart_for_colour_blind_readers(matrix: np.ndarray) -> None:
    for first, second in combinations(COLOURS[:4], 2):
        assert distance(first, second, matrix) > 10, (first, second)
    assert distance("#e24a33", "#8eba42", DEUTERANOPIA) < distance("#e24a33", "#8eba42", np.eye(3)) / 2, "control"


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _figure_class.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"pip install 'detseg\[plot\]'"):
        plot_history({"a": ROWS})
