"""Arrange many images on one contact sheet, and write image files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.reports.fonts import report_missing_glyphs
from detseg.reports.text import paste_text, text_mask
from detseg.runtime.files import write_bytes
from detseg.runtime.reporter import Reporter, terminal

UInt8 = npt.NDArray[np.uint8]

CELL = 320
"""Longest side of an image on a sheet, in pixels: four fit side by side on a screen."""
GAP = 8
TITLE = 13
_TEXT_COLOUR = (40, 40, 40)


def sheet(
    images: Sequence[UInt8],
    titles: Sequence[str],
    columns: int = 4,
    *,
    cell: int = CELL,
    reporter: Reporter | None = None,
) -> UInt8:
    """Arrange images in rows, each below its title, on a white background: uint8 [H, W, 3].

    Args:
        images: uint8 [h, w, 3] RGB of any size; each is resized to a longest side of ``cell`` (enlarged at most 4 x).
        titles: one for each image, in any script; long ones are truncated and end in "...".
        columns: images per row; fewer if there are fewer images.
        reporter: is told once which font to install if no installed font has the characters of the titles; the
            terminal by default.

    Raises:
        ValueError: the numbers of titles and images differ, or ``columns`` is below 1.
    """
    if len(images) != len(titles) or columns < 1:
        raise ValueError(f"{len(images)} images, {len(titles)} titles and {columns} columns do not fit together")
    report_missing_glyphs(titles, reporter or terminal())
    if not images:
        blank = np.full((TITLE * 3, cell, 3), 255, np.uint8)
        paste_text(blank, text_mask("no images", TITLE), TITLE, GAP, _TEXT_COLOUR)
        return blank
    columns = min(columns, len(images))
    resized = [_resized(image, cell) for image in images]
    cell_width = max(image.shape[1] for image in resized)
    title_height = text_mask("", TITLE).shape[0] + 4
    rows = [resized[start : start + columns] for start in range(0, len(resized), columns)]
    heights = [max(image.shape[0] for image in row) + title_height + GAP for row in rows]
    out = np.full((sum(heights) + GAP, columns * (cell_width + GAP) + GAP, 3), 255, np.uint8)
    top = GAP
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for column, image in enumerate(row):
            left = GAP + column * (cell_width + GAP)
            title = text_mask(titles[number * columns + column], TITLE, cell_width)
            paste_text(out, title, top, left, _TEXT_COLOUR)
            start = top + title_height
            out[start : start + image.shape[0], left : left + image.shape[1]] = image
        top += height
    return out


def write_image(path: str | os.PathLike[str], image: UInt8) -> None:
    """Write uint8 [H, W, 3] RGB as PNG or JPEG (quality 92), depending on the suffix, atomically.

    Raises:
        DataError: any other suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise DataError(f"{path}: images are written as .png, .jpg or .jpeg, not {suffix or 'without a suffix'}")
    options = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 92]
    ok, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]), options)
    assert ok, "OpenCV always encodes uint8 RGB"
    write_bytes(path, data.tobytes())


def _resized(image: UInt8, cell: int) -> UInt8:
    height, width = image.shape[:2]
    factor = min(cell / max(height, width), 4.0)
    size_wh = (max(round(width * factor), 1), max(round(height * factor), 1))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size_wh, interpolation=interpolation), np.uint8)
