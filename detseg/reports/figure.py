"""Make matplotlib figures that are readable at the width of a phone. matplotlib is optional, and imported when used."""

from __future__ import annotations

import functools
import io
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.reports.fonts import plot_families, plot_text
from detseg.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UInt8 = npt.NDArray[np.uint8]

WIDTH = 4.8
"""Width in inches. A phone shows it 390 pixels wide, and then letters of 8.5 points are 9.6 pixels high."""
DPI = 200
SMALL, NORMAL, LARGE = 8.5, 9.5, 11.0
"""Sizes of letters in points."""
CELL = 480
"""Longest side in pixels of an image in a grid of two columns."""
ENLARGE = 1.8
"""Letters and lines that are drawn into such an image are that much larger than in a single image."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
"""Of lines: Okabe and Ito, on white."""
STYLES = ("-", "--", ":", "-.")


def new_figure(height: float) -> Figure:
    """Return an empty figure of the usual width and ``height`` inches.

    Raises:
        DataError: matplotlib is not installed.
    """
    return _figure_class()(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


@functools.cache
def _figure_class() -> Any:
    """Return matplotlib's class with a form for notebooks, which is shown also where pyplot is not imported."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DataError("matplotlib is not installed; pip install 'detseg[plot]'") from None

    class NotebookFigure(Figure):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            return figure_png(self), {"width": round(WIDTH * 100)}

    return NotebookFigure


def figure_png(figure: Figure) -> bytes:
    """Return the figure as a PNG file; the same figure gives the same bytes."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def write_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure as a PNG file, atomically."""
    with atomic_write(path) as file:
        file.write(figure_png(figure))


def figure_title(figure: Figure, title: str) -> None:
    """Write a title over the whole figure, in lines that fit its width."""
    figure.suptitle(wrapped(plot_text(title), 46), fontsize=LARGE, fontfamily=plot_families([title]))


def wrapped(text: str, letters: int) -> str:
    """Break lines of a text after at most ``letters`` characters, also inside of a long word."""
    lines = []
    for line in text.splitlines():
        rest = line
        while len(rest) > letters:
            end = rest.rfind(" ", 0, letters + 1)
            end = end if end > letters // 3 else letters
            lines.append(rest[:end].rstrip())
            rest = rest[end:].lstrip()
        lines.append(rest)
    return "\n".join(lines)


def image_grid(
    images: Sequence[UInt8], captions: Sequence[str], title: str, *, columns: int = 2, framed: Sequence[bool] = ()
) -> Figure:
    """Arrange images in rows, each below its caption.

    Args:
        images: uint8 [H, W, 3] RGB of any size.
        captions: one for each image, in any script.
        title: of the figure.
        framed: whether an image has a frame; for all or none.
    """
    rows = [range(start, min(start + columns, len(images))) for start in range(0, len(images), columns)]
    texts = [wrapped(plot_text(caption), 60 // columns) for caption in captions]
    cell = (WIDTH - 0.1 * (columns + 1)) / columns
    heights = [
        max(cell * images[i].shape[0] / images[i].shape[1] + 0.17 * (texts[i].count("\n") + 1) for i in row)
        for row in rows
    ]
    figure = new_figure(sum(heights) + 0.08 * len(rows) + 0.25 + 0.2 * (wrapped(title, 46).count("\n") + 1))
    figure_title(figure, title)
    if not images:
        return figure
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    families = plot_families(captions)
    for number, row in enumerate(rows):
        for column, i in enumerate(row):
            axes = figure.add_subplot(grid[number, column])
            axes.imshow(images[i], interpolation="antialiased")
            axes.set_title(texts[i], fontsize=SMALL, fontfamily=families, pad=2.5, loc="left")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_anchor("N")
            for spine in axes.spines.values():
                spine.set_visible(bool(framed) and framed[i])
                spine.set_linewidth(2.5)
    return figure


def fitted(image: UInt8, longest: int = CELL) -> UInt8:
    """Resize an image to a longest side of ``longest`` pixels."""
    factor = longest / max(image.shape[:2])
    height, width = (max(round(side * factor), 1) for side in image.shape[:2])
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), np.uint8)


def legend(axes: Any, labels: Sequence[str], *, columns: int = 2) -> None:
    """Add the legend of a plot below it, where it hides no line, in the fonts that its labels need."""
    font = {"family": plot_families(labels), "size": SMALL}
    axes.legend(
        prop=font, frameon=False, handlelength=2.4, ncols=columns, loc="upper center", bbox_to_anchor=(0.48, -0.2),
        borderaxespad=0, labelspacing=0.3, columnspacing=1.2,
    )  # fmt: skip


def legend_height(labels: int, columns: int = 2) -> float:
    """Return the height of a legend in inches."""
    return 0.17 * math.ceil(labels / columns) + 0.1
