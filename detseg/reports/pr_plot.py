"""Plot precision against recall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detseg.pr_curve import RECALLS, PrCurve
from detseg.reports.figure import COLOURS, NORMAL, SMALL, STYLES, WIDTH, legend, legend_height, new_figure
from detseg.reports.fonts import plot_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 7
"""With more classes only the worst are named; the others are grey."""
SHOWN_SCORE = 0.5


def plot_pr(curves: Sequence[PrCurve]) -> Figure:
    """Plot precision-recall curves: one panel for each kind and IoU, one line for each class, with its AP.

    A dot marks the predictions with a score of at least 0.5.

    Args:
        curves: as ``evaluator.pr_curves``.
    """
    titles = list(dict.fromkeys(curve.title for curve in curves))
    names = list(dict.fromkeys(curve.class_name for curve in curves))
    labels = min(len(names), MOST_CLASSES) + 2
    figure = new_figure(max(len(titles), 1) * (0.62 * WIDTH + legend_height(labels)))
    if not curves:
        figure.text(0.5, 0.5, "no ground truth", ha="center", va="center", fontsize=NORMAL)
    for number, title in enumerate(titles, 1):
        axes = figure.add_subplot(len(titles), 1, number)
        panel = sorted((curve for curve in curves if curve.title == title), key=lambda curve: -curve.ap)
        named = panel if len(panel) <= MOST_CLASSES else panel[-3:]
        for curve in panel:
            if curve not in named:
                axes.plot(RECALLS, curve.precision, color="0.75", linewidth=0.9, zorder=1)
        mean = np.mean([curve.precision for curve in panel], axis=0)
        if len(panel) > 1:
            label = f"mean of {len(panel)} classes, AP {mean.mean():.2f}"
            axes.plot(RECALLS, mean, color="black", linewidth=2.6, label=label, zorder=2)
        for position, curve in enumerate(named):
            # All panels show a class alike; if there are too many for that, only the lines of one panel differ.
            index = names.index(curve.class_name) if len(names) <= MOST_CLASSES else position
            colour, style = COLOURS[index % len(COLOURS)], STYLES[index % len(STYLES)]
            label = f"{plot_text(_short(curve.class_name))}, AP {curve.ap:.2f}"
            axes.plot(RECALLS, curve.precision, color=colour, linestyle=style, linewidth=1.7, label=label, zorder=3)
            above = np.flatnonzero((curve.scores >= SHOWN_SCORE) & (curve.precision > 0))
            if len(above):
                point = above[-1]
                axes.plot(RECALLS[point], curve.precision[point], "o", color=colour, markersize=5, zorder=4)
        axes.set_title(f"{title}: precision and recall", fontsize=NORMAL + 1)
        axes.set_xlabel("recall (share of the objects that are detected)" if panel[0].iou else "recall", fontsize=SMALL)
        axes.set_ylabel("precision (share of correct predictions)", fontsize=SMALL)
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.03)
        axes.tick_params(labelsize=SMALL)
        axes.grid(True, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.plot([], [], "o", color="0.4", markersize=5, label=f"dot: score {SHOWN_SCORE:g}")
        legend(axes, [curve.class_name for curve in named])
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:16]}..."
