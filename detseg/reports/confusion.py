"""Plot a confusion matrix as PNG. matplotlib is optional and only imported when the function is called."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detseg.reports.fonts import plot_families, plot_text
from detseg.runtime.files import write_bytes

_MAX_NUMBERED = 30  # with more classes, cells have no numbers: they would not be readable


def plot_confusion(names: Sequence[str], matrix: npt.NDArray[np.integer], path: str | os.PathLike[str]) -> bool:
    """Plot a confusion matrix to the PNG file ``path``; False, and no file, if matplotlib is not installed.

    Cells show counts; their colour is the share of the row, so that rare classes are as visible as frequent ones.

    Args:
        names: K class names.
        matrix: int [K, K], rows are ground truth, columns are predictions.

    Raises:
        ValueError: the matrix is not K x K, or K is 0.
    """
    matrix, count = np.asarray(matrix), len(names)
    if not count or matrix.shape != (count, count):
        raise ValueError(f"a confusion matrix of shape {matrix.shape} does not fit {count} class names")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    side = float(np.clip(1.6 + 0.42 * count, 3.2, 15))
    figure = Figure(figsize=(side + 1.6, side + 0.9), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    totals = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.maximum(totals, 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    font_size = float(np.clip(11 - 0.12 * count, 4, 10))
    labels = [plot_text(name if len(name) <= 24 else name[:22] + "...") for name in names]
    families = plot_families(names)
    rotation, alignment = (90, "center") if count > 6 else (30, "right")
    axes.set_xticks(range(count), labels, rotation=rotation, ha=alignment, fontfamily=families)
    axes.set_yticks(range(count), labels, fontfamily=families)
    axes.tick_params(labelsize=font_size, length=2)
    axes.set_xlabel("predicted")
    axes.set_ylabel("ground truth")
    total = int(matrix.sum())
    title = f"{int(np.trace(matrix))} of {total} correct ({np.trace(matrix) / total:.1%})" if total else "no images"
    axes.set_title(title, fontsize=11)
    if count <= _MAX_NUMBERED:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            text_colour = "white" if share[row, column] > 0.55 else "black"
            axes.text(
                column, row, str(matrix[row, column]), ha="center", va="center", color=text_colour, fontsize=font_size
            )
    figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03, label="share of the ground-truth class")
    data = io.BytesIO()
    figure.savefig(data, format="png")
    write_bytes(path, data.getvalue())
    return True
