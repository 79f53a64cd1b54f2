"""Plot loss and AP over the epochs of a run as PNG. matplotlib is optional and only imported when called."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from detseg.reports.fonts import plot_families, plot_text
from detseg.runtime.files import write_bytes

_METRIC = re.compile(r"((bbox|segm|keypoints)_)?AP(50)?|(balanced_|top5_)?accuracy|accuracy_.+")
_TRAIN_ACCURACY = re.compile(r"train_accuracy(_.+)?")
_SECONDARY = re.compile(r"_?AP50$|^top\d|^accuracy_")  # drawn thin and dashed
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")  # Okabe and Ito, on white


def plot_curves(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> bool:
    """Plot the rows of metrics.jsonl to the PNG file ``path``; False, and no file, if matplotlib is not installed.

    One panel each for the total losses, the loss terms, the metrics and the learning rate, if the rows have them.

    Args:
        rows: one dict per epoch: ``epoch``, ``train_loss``, ``train_<term>``, ``val_loss``, ``val_<term>``, ``lr``,
            and metrics in [0, 1] such as ``bbox_AP``, ``segm_AP50``, ``accuracy``, ``accuracy_<label field>``, the last
            two also with ``train_`` before them; None is a gap, epochs without the key are skipped.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return False
    panels = [(title, lines) for title, lines in _panels(rows) if lines]
    figure = Figure(figsize=(4.6 * max(len(panels), 1), 3.9), dpi=110, layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for number, (title, lines) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        for label, key, colour, dashed in lines:
            points = [(row["epoch"], _number(row[key])) for row in rows if key in row]
            axes.plot(
                *zip(*points, strict=True),
                color=_COLOURS[colour % len(_COLOURS)],
                linestyle="--" if dashed else "-",
                linewidth=1.3 if dashed else 1.9,
                marker="o" if len(rows) <= 30 else None,
                markersize=6 if len(rows) == 1 else 3,
                label=plot_text(label),
            )
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(True, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if len(rows) == 1:
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
        if title.endswith("metrics"):
            axes.set_ylim(-0.02, 1.02)
        elif title == "learning rate":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        else:
            values = [_number(row.get(line[1])) for row in rows for line in lines]
            highest = max((value for value in values if math.isfinite(value)), default=0.0)
            axes.set_ylim(0, 1.08 * highest if highest > 0 else 1)
        if title != "learning rate":
            font = {"family": plot_families(line[0] for line in lines), "size": 8}
            axes.legend(prop=font, frameon=True, framealpha=0.75, edgecolor="none")
    if not panels:
        figure.text(0.5, 0.5, "no epoch completed", ha="center", va="center")
    data = io.BytesIO()
    figure.savefig(data, format="png")
    write_bytes(path, data.getvalue())
    return True


def _panels(rows: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, str, int, bool]]]]:
    """(title, lines) of every panel; a line is (label, key, index of its colour, whether it is dashed)."""
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
