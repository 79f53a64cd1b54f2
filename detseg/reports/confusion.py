"""Plot a confusion matrix. matplotlib is optional and only imported when the function is called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from detseg.reports.figure import LARGE, NORMAL, WIDTH, new_figure, wrapped, write_figure
from detseg.reports.fonts import plot_families, plot_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 14
"""With more classes, those with the most mistakes are shown: more cells are not readable."""


def plot_confusion(
    names: Sequence[str], matrix: npt.NDArray[np.integer], *, has_background: bool = False, name: str = ""
) -> Figure:
    """Plot a confusion matrix.

    Cells show counts; their colour is the share of the row, so that rare classes are as visible as frequent ones. Of
    more than 14 classes those with the most mistakes are shown.

    Args:
        names: K class names.
        matrix: int [K, K], rows are ground truth, columns are predictions.
        has_background: the matrix is [K + 1, K + 1]; its last row has the false alarms, its last column the missed
            objects.
        name: of the label field, for the title.

    Raises:
        ValueError: the size of the matrix does not fit, or K is 0.
    """
    matrix, count = np.asarray(matrix), len(names) + has_background
    if not names or matrix.shape != (count, count):
        raise ValueError(f"a confusion matrix of shape {matrix.shape} does not fit {len(names)} class names")
    title = _title(matrix, has_background, name)
    labels = [(class_name, class_name) for class_name in names]
    if len(names) > MOST_CLASSES:
        mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
        chosen = np.sort(np.argsort(-mistakes[: len(names)], kind="stable")[:MOST_CLASSES])
        labels = [labels[i] for i in chosen]
        rows = [*chosen.tolist(), *([count - 1] if has_background else [])]
        matrix = matrix[np.ix_(rows, rows)]
        title += f"; the {MOST_CLASSES} of {len(names)} classes with the most mistakes"
    labels += [("no object", "not detected")] if has_background else []
    return _drawn(matrix, labels, title, has_background)


def write_confusion(
    names: Sequence[str], matrix: npt.NDArray[np.integer], path: str | os.PathLike[str], *, name: str = ""
) -> bool:
    """Plot the confusion matrix of a classifier to the PNG file ``path``; False, and no file, without matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    write_figure(plot_confusion(names, matrix, name=name), path)
    return True


def _drawn(
    matrix: npt.NDArray[np.integer], labels: Sequence[tuple[str, str]], title: str, has_background: bool
) -> Figure:
    """``labels``: name of the row, and of the column."""
    count = len(labels)
    figure = new_figure(WIDTH * (0.75 if count <= 4 else 1.0))
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    size = float(np.clip(13.5 - 0.45 * count, 7.0, 10.0))
    texts = [
        [wrapped(plot_text(text if len(text) <= 24 else text[:22] + "..."), 12) for text in column]
        for column in zip(*labels, strict=True)
    ]
    families = plot_families(name for label in labels for name in label)
    rotation, alignment = (90, "center") if count > 4 else (0, "center")
    axes.set_xticks(range(count), texts[1], rotation=rotation, ha=alignment, fontfamily=families)
    axes.set_yticks(range(count), texts[0], fontfamily=families)
    axes.tick_params(labelsize=max(size, 7.5), length=2)
    axes.set_xlabel("predicted (a darker cell: a larger share of its row)", fontsize=NORMAL)
    axes.set_ylabel("ground truth", fontsize=NORMAL)
    figure.suptitle(wrapped(plot_text(title), 46), fontsize=LARGE, fontfamily=plot_families([title]))
    for row, column in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if share[row, column] > 0.55 else "black"
        text = str(matrix[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    if has_background:
        axes.axhline(count - 1.5, color="black", linewidth=0.8)
        axes.axvline(count - 1.5, color="black", linewidth=0.8)
    return figure


def _title(matrix: npt.NDArray[np.integer], has_background: bool, name: str) -> str:
    prefix, correct = f"{name}: " if name else "", int(np.trace(matrix))
    if has_background:
        objects, missed, alarms = (int(part.sum()) for part in (matrix[:-1], matrix[:-1, -1], matrix[-1]))
        return f"{prefix}{correct} of {objects} objects correct, {missed} missed, {alarms} false alarms"
    total = int(matrix.sum())
    return f"{prefix}{correct} of {total} correct ({correct / total:.1%})" if total else f"{prefix}no images"
