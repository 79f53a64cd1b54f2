"""Plot losses, metrics and learning rate over the epochs of runs. matplotlib is optional, and imported when used."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from detseg.reports.figure import COLOURS, NORMAL, SMALL, STYLES, WIDTH, legend, legend_height, new_figure, write_figure
from detseg.reports.fonts import plot_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
Line = tuple[str, str, int, bool]
"""Label, key of the rows, index of the colour, whether it is dashed."""

_METRIC = re.compile(r"((bbox|segm|keypoints)_)?AP(50)?|(balanced_|top5_)?accuracy|accuracy_.+")
_TRAIN_ACCURACY = re.compile(r"train_accuracy(_.+)?")
_SECONDARY = re.compile(r"_?AP50$|^top\d|^accuracy_|^balanced_")  # drawn thin and dashed; left out of several runs


def plot_history(histories: Mapping[str, Rows]) -> Figure:
    """Plot runs: one panel each for the total losses, the loss terms, the metrics and the learning rate.

    Several runs are compared: each has one colour, and only the total losses and the main metrics are shown.

    Args:
        histories: name of the run -> rows of its metrics.jsonl, one dict per epoch: ``epoch``, ``train_loss``,
            ``train_<term>``, ``val_loss``, ``val_<term>``, ``lr``, and metrics in [0, 1] such as ``bbox_AP``,
            ``segm_AP50``, ``accuracy``, ``accuracy_<label field>``, the last two also with ``train_`` before them;
            None is a gap, epochs without the key are skipped.
    """
    several = len(histories) > 1
    rows = [row for history in histories.values() for row in history]
    panels = [(title, lines) for title, lines in _panels(rows) if lines and not (several and title == "loss terms")]
    labels = sum(len(histories) + len(lines) for _, lines in panels)
    figure = new_figure(max(len(panels), 1) * 0.58 * WIDTH + legend_height(labels))
    if not panels:
        figure.text(0.5, 0.5, "no epoch completed", ha="center", va="center", fontsize=NORMAL)
    for number, (title, lines) in enumerate(panels, 1):
        axes = figure.add_subplot(len(panels), 1, number)
        if several:
            _draw_runs(axes, histories, [line for line in lines if not _SECONDARY.search(line[1])])
        elif title == "loss terms":
            _draw_terms(axes, rows, lines)
        else:
            _draw_lines(axes, rows, lines)
        _finish_panel(axes, title, rows, lines)
        if several or title != "learning rate":
            legend(axes, [*(line[0] for line in lines), *histories])
    return figure


def plot_curves(rows: Rows, path: str | os.PathLike[str]) -> bool:
    """Plot one run to the PNG file ``path``; False, and no file, if matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    write_figure(plot_history({"": rows}), path)
    return True


def _draw_lines(axes: Any, rows: Rows, lines: Sequence[Line]) -> None:
    for label, key, colour, dashed in lines:
        _draw(axes, rows, key, plot_text(label), COLOURS[colour % len(COLOURS)], "--" if dashed else "-")


def _draw_terms(axes: Any, rows: Rows, lines: Sequence[Line]) -> None:
    """One colour for each term, one style for each split; the legend explains both."""
    names: dict[int, str] = {}
    for label, key, colour, dashed in lines:
        _draw(axes, rows, key, "_", COLOURS[colour % len(COLOURS)], "--" if dashed else "-")
        names[colour] = label.rpartition(" (")[0]
    for colour, name in names.items():
        axes.plot([], [], color=COLOURS[colour % len(COLOURS)], linewidth=4, label=plot_text(name))
    for style, split in (("-", "train"), ("--", "val")):
        if any(key.startswith(split) for _, key, _, _ in lines):
            axes.plot([], [], color="0.3", linestyle=style, label=split)


def _draw_runs(axes: Any, histories: Mapping[str, Rows], lines: Sequence[Line]) -> None:
    """One colour for each run, one style for each value; the legend explains both."""
    for index, (name, rows) in enumerate(histories.items()):
        colour = COLOURS[index % len(COLOURS)]
        for number, (_, key, _, _) in enumerate(lines):
            _draw(axes, rows, key, "_", colour, STYLES[number % len(STYLES)])
        axes.plot([], [], color=colour, linewidth=4, label=plot_text(name if len(name) <= 24 else f"...{name[-21:]}"))
    for number, (label, _, _, _) in enumerate(lines if len(lines) > 1 else ()):
        axes.plot([], [], color="0.3", linestyle=STYLES[number % len(STYLES)], label=plot_text(label))


def _draw(axes: Any, rows: Rows, key: str, label: str, colour: str, style: str) -> None:
    points = [(row["epoch"], _number(row[key])) for row in rows if key in row]
    if points:
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            linestyle=style,
            linewidth=1.9 if style == "-" else 1.4,
            marker="o" if len(rows) <= 30 else None,
            markersize=6 if len(rows) == 1 else 4 if style != "-" else 3,
            markerfacecolor=colour if style == "-" else "white",  # tells the two apart also where there is one point
            label=label,
        )


def _finish_panel(axes: Any, title: str, rows: Rows, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import MaxNLocator

    hints = {
        "loss": " (lower is better)",
        "metrics": " (higher is better)",
        "validation metrics": " (higher is better)",
    }
    axes.set_title(f"{title}{hints.get(title, '')}", fontsize=NORMAL + 1)
    axes.set_xlabel("epoch", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    epochs = {row["epoch"] for row in rows}
    if len(epochs) == 1:
        axes.set_xlim(min(epochs) - 1, min(epochs) + 1)
    if title.endswith("metrics"):
        axes.set_ylim(-0.02, 1.02)
    elif title == "learning rate":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes.yaxis.get_offset_text().set_fontsize(SMALL)
    else:
        values = [_number(row.get(line[1])) for row in rows for line in lines]
        highest = max((value for value in values if math.isfinite(value)), default=0.0)
        axes.set_ylim(0, 1.08 * highest if highest > 0 else 1)


def _panels(rows: Rows) -> list[tuple[str, list[Line]]]:
    """Return title and lines of every panel."""
    keys = list(dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, int | float)))
    total = [(name, f"{name}_loss", number, False) for number, name in enumerate(("train", "val"))]
    terms = list(dict.fromkeys(key.split("_", 1)[1] for key in keys if key.startswith(("train_loss", "val_loss"))))
    by_term = [
        (f"{term.removeprefix('loss_')} ({split})", f"{split}_{term}", number, split == "val")
        for number, term in enumerate(term for term in terms if term != "loss")
        for split in ("train", "val")
    ]
    metric_keys = sorted(key for key in keys if _METRIC.fullmatch(key))
    families = list(dict.fromkeys(re.sub("_?AP(50)?$", "", key) for key in metric_keys))
    metrics = [
        (key.replace("_", " "), key, families.index(re.sub("_?AP(50)?$", "", key)), bool(_SECONDARY.search(key)))
        for key in metric_keys
    ]
    train_keys = sorted(key for key in keys if _TRAIN_ACCURACY.fullmatch(key))
    metrics += [
        (f"{key.removeprefix('train_').replace('_', ' ')} (train)", key, number, False)
        for number, key in enumerate(train_keys, len(families))
    ]
    return [
        ("loss", [line for line in total if line[1] in keys]),
        ("loss terms", [line for line in by_term if line[1] in keys] if len(terms) > 2 else []),
        ("metrics" if train_keys else "validation metrics", metrics),
        ("learning rate", [("lr", "lr", 1, False)] if "lr" in keys else []),
    ]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
