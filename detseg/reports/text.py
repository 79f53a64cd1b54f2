"""Draw text into images, in any script for which a font is installed; OpenCV's built-in font is ASCII only."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import ImageFont

from detseg.reports.fonts import Font, font_for

UInt8 = npt.NDArray[np.uint8]

SMALLEST_TEXT = 7
MOST_LETTERS = 1000
"""Letters of a name that are looked at: measuring the width of a longer one takes seconds."""
MIN_LETTERS = 3  # a name that is shortened further is written without its detail
_PIECES = re.compile(r"\s+|[^\s_/-]+[_/-]*|[_/-]+")
"""Parts of a text that stay on one line where they fit: words, and parts of words that ``_``, ``-`` or ``/`` join."""


def text_mask(text: str, size: int, max_width: int | None = None) -> UInt8:
    """Render one line of text: uint8 [h, w] coverage; h depends only on ``size``.

    Characters that are in no installed font are written as ``\\uXXXX``.

    Args:
        size: font size in pixels, at least 6.
        max_width: wider text is truncated and ends in "..."; None: no limit.
    """
    text = text if len(text) <= MOST_LETTERS else text[:MOST_LETTERS] + "..."
    font, text = font_for(" ".join(text.split()), size)
    if max_width is not None and font.getlength(text) > max_width:
        text = text[: _longest(text, lambda part: font.getlength(part + "...") <= max_width)] + "..."
    return _rendered(text, font, size, max_width)


def text_block(text: str, detail: str, size: int, max_width: int, max_height: int) -> UInt8:
    """Render ``text`` and ``detail`` (a score) in as many lines as are needed: uint8 [h, w] coverage, w <= max_width.

    Where the lines are higher than ``max_height``, the font is reduced to 7 pixels; where that is not enough, ``text``
    is shortened and ends in "...". There is always at least one line.

    Args:
        size: font size in pixels, at least 6.
        max_width, max_height: space in pixels, at least 1.
    """
    text = text if len(text) <= MOST_LETTERS else text[:MOST_LETTERS] + "..."
    whole = " ".join(f"{text} {detail}".split())
    for smaller in range(size, min(size, SMALLEST_TEXT) - 1, -1):
        font, prepared = font_for(whole, smaller)
        if font.getlength(prepared) <= max_width:  # most names
            return _rendered(prepared, font, smaller, max_width)
        lines = _wrapped(prepared, font, max_width, max_height // line_height(smaller))
        if lines:
            return _stacked([_rendered(line, font, smaller, max_width) for line in lines])
    size, count = min(size, SMALLEST_TEXT), max(max_height // line_height(min(size, SMALLEST_TEXT)), 1)
    font, name = font_for(" ".join(text.split()), size)
    end = font_for(f"... {detail}".rstrip(), size)[1]
    if not _wrapped(name[:MIN_LETTERS] + end, font, max_width, count):
        end = "..."  # the name tells more than the score
    length = _longest(name, lambda part: bool(_wrapped(part + end, font, max_width, count)))
    lines = _wrapped(name[:length].rstrip() + end, font, max_width, count) or [end]
    return _stacked([_rendered(line, font, size, max_width) for line in lines])


def text_size(height: int, width: int) -> int:
    """Font size in pixels that is readable on an image of this size without covering it: 7 to 60."""
    return int(np.clip(round(5.5 + 0.02 * float(np.sqrt(height * width))), 7, 60))


def line_height(size: int) -> int:
    """Height in pixels of a line of text."""
    return round(1.3 * size)


def paste_text(image: UInt8, text: UInt8, top: int, left: int, colour: tuple[int, int, int]) -> None:
    """Blend ``colour`` into ``image`` [H, W, 3] in place, weighted by the text mask; parts outside are cropped."""
    full_mask = np.zeros(image.shape[:2], np.uint8) if min(top, left) < 0 else None
    if full_mask is not None:
        _paste_maximum(full_mask, text, top, left)
        top, left, text = 0, 0, full_mask
    window = image[top : top + text.shape[0], left : left + text.shape[1]]
    alpha = text[: window.shape[0], : window.shape[1], None].astype(np.float32) / 255
    window[:] = np.round(window * (1 - alpha) + np.array(colour, np.float32) * alpha).astype(np.uint8)


def _rendered(text: str, font: Font, size: int, max_width: int | None) -> UInt8:
    """One line of text in ``font``, cropped at ``max_width``."""
    height, width = line_height(size), max(round(font.getlength(text)) + 1, 1)
    if max_width is not None:
        width = min(width, max(max_width, 1))
    mask = np.zeros((height, width), np.uint8)
    if text.strip():
        drawn = font.getmask(text, mode="L", anchor="ls") if isinstance(font, ImageFont.FreeTypeFont) else None
        if drawn is None:  # Pillow without FreeType: its small bitmap font, not scaled
            drawn, left, top = font.getmask(text, mode="L"), 0, 0
        else:
            box = font.getbbox(text, anchor="ls")
            left, top = round(box[0]), round(1.0 * size) + round(box[1])
        glyphs = np.asarray(drawn, np.uint8).reshape(drawn.size[1], drawn.size[0])
        _paste_maximum(mask, glyphs, top, left)
    return mask


def _stacked(lines: list[UInt8]) -> UInt8:
    """Lines below each other, aligned left."""
    width = max(line.shape[1] for line in lines)
    return np.concatenate([np.pad(line, ((0, 0), (0, width - line.shape[1]))) for line in lines])


@lru_cache(maxsize=1024)
def _wrapped(text: str, font: Font, max_width: int, most: int) -> list[str]:
    """Lines of at most ``max_width`` pixels; none if there are more than ``most``, or a character is wider."""

    def fits(part: str) -> bool:
        return font.getlength(part.rstrip()) <= max_width

    lines, line = [], ""
    for piece in _PIECES.findall(text):
        if fits(line + piece):
            line += piece
            continue
        lines += [line.rstrip()] if line.strip() else []
        line = piece.lstrip()
        while not fits(line):
            end = _longest(line, fits)
            if not end or len(lines) >= most:
                return []
            lines.append(line[:end])
            line = line[end:]
    lines += [line.rstrip()] if line.strip() else []
    return lines if len(lines) <= most else []


def _longest(text: str, fits: Callable[[str], bool]) -> int:
    """Length of the longest beginning of ``text`` that fits; 0 if none does."""
    return bisect_left(range(1, len(text) + 1), True, key=lambda length: not fits(text[:length]))


def _paste_maximum(mask: UInt8, glyphs: UInt8, top: int, left: int) -> None:
    """Maximum of ``mask`` and ``glyphs`` at (top, left), in place; parts outside are cropped."""
    glyphs = glyphs[max(-top, 0) :, max(-left, 0) :]
    window = mask[max(top, 0) :, max(left, 0) :][: glyphs.shape[0], : glyphs.shape[1]]
    np.maximum(window, glyphs[: window.shape[0], : window.shape[1]], out=window)
