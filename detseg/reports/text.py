"""Draw text into images, in any script for which a font is installed; OpenCV's built-in font is ASCII only."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ImageFont

UInt8 = npt.NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PLOT_FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
_FALLBACKS = (
    "DejaVuSans.ttf", _PLOT_FONT, "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf", "Arial Unicode.ttf", "arialuni.ttf", "msgothic.ttc", "PingFang.ttc",
)  # fmt: skip
"""Common fonts (one is part of matplotlib), for characters that are not in Pillow's built-in ASCII font."""


def text_mask(text: str, size: int, max_width: int | None = None) -> UInt8:
    """Render one line of text: uint8 [h, w] coverage; h depends only on ``size``.

    Characters that are in no installed font are written as ``\\uXXXX``.

    Args:
        size: font size in pixels, at least 6.
        max_width: wider text is truncated and ends in "..."; None: no limit.
    """
    font, text = _font_for(" ".join(text.split()), size)
    if max_width is not None and font.getlength(text) > max_width:
        while text and font.getlength(text + "...") > max_width:
            text = text[:-1]
        text += "..."
    height, width = round(1.3 * size), max(round(font.getlength(text)) + 1, 1)
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


def text_size(height: int, width: int) -> int:
    """Font size in pixels that is readable on an image of this size without covering it: 7 to 60."""
    return int(np.clip(round(5.5 + 0.02 * float(np.sqrt(height * width))), 7, 60))


def paste_text(image: UInt8, text: UInt8, top: int, left: int, colour: tuple[int, int, int]) -> None:
    """Blend ``colour`` into ``image`` [H, W, 3] in place, weighted by the text mask; parts outside are cropped."""
    full_mask = np.zeros(image.shape[:2], np.uint8) if min(top, left) < 0 else None
    if full_mask is not None:
        _paste_maximum(full_mask, text, top, left)
        top, left, text = 0, 0, full_mask
    window = image[top : top + text.shape[0], left : left + text.shape[1]]
    alpha = text[: window.shape[0], : window.shape[1], None].astype(np.float32) / 255
    window[:] = np.round(window * (1 - alpha) + np.array(colour, np.float32) * alpha).astype(np.uint8)


def _paste_maximum(mask: UInt8, glyphs: UInt8, top: int, left: int) -> None:
    """Maximum of ``mask`` and ``glyphs`` at (top, left), in place; parts outside are cropped."""
    glyphs = glyphs[max(-top, 0) :, max(-left, 0) :]
    window = mask[max(top, 0) :, max(left, 0) :][: glyphs.shape[0], : glyphs.shape[1]]
    np.maximum(window, glyphs[: window.shape[0], : window.shape[1]], out=window)


@lru_cache(maxsize=256)
def _font(size: int, name: str) -> Font | None:
    """The default font ("") or the font ``name``; None if it is not installed."""
    try:
        if not name:
            return ImageFont.load_default(size)
        if name.startswith("mpl-data"):
            package = find_spec("matplotlib")  # located, not imported
            name = str(Path(package.origin).parent / name) if package and package.origin else name
        return ImageFont.truetype(name, size)
    except ImportError:  # Pillow without FreeType
        return None if name else ImageFont.load_default()
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _font_for(text: str, size: int) -> tuple[Font, str]:
    """The font that has most of the characters, and the text with escapes for those that it does not have."""
    default = _font(size, "")
    assert default is not None, "Pillow always has a default font"
    if text.isascii():
        return default, text.replace(" ", "  ")  # its space is too narrow at small sizes
    fonts = [default, *(font for name in _FALLBACKS if (font := _font(size, name)) is not None)]
    best = max(fonts, key=lambda font: sum(_has_glyph(font, letter) for letter in text))
    return best, _escaped(text, best)


def plot_text(text: str) -> str:
    """Escape characters of ``text`` that matplotlib's default font does not have as ``\\uXXXX``."""
    font = None if text.isascii() else _font(10, _PLOT_FONT)
    return text if font is None else _escaped(text, font)


def _escaped(text: str, font: Font) -> str:
    return "".join(
        c if _has_glyph(font, c) else f"\\u{ord(c):04x}" if ord(c) < 65536 else f"\\U{ord(c):08x}" for c in text
    )


def _has_glyph(font: Font, letter: str) -> bool:
    """Whether a font has a character: a missing one is drawn like an unassigned code point."""
    if letter.isascii() or not isinstance(font, ImageFont.FreeTypeFont):
        return letter.isascii()
    missing, drawn = font.getmask("\uffff"), font.getmask(letter)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)
