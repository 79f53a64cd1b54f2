"""Find an installed font that has the characters of a text; say once which package to install where none has them."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from detseg.runtime.reporter import Reporter
from detseg.short_text import counted, listed

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PLOT_FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
FONT_FILES: tuple[str, ...] = (
    "DejaVuSans.ttf", PLOT_FONT, "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansCJKkr-Regular.otf", "NotoSansKR-Regular.otf", "NotoSansKR-Regular.ttf",
    "NotoSansJP-Regular.otf", "NotoSansSC-Regular.otf", "NanumGothic.ttf", "wqy-zenhei.ttc", "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "FreeSans.ttf", "unifont.otf", "unifont.ttf",
    "Arial Unicode.ttf", "AppleSDGothicNeo.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc",
    "arialuni.ttf", "segoeui.ttf", "malgun.ttf", "msyh.ttc", "msgothic.ttc", "Nirmala.ttf", "Nirmala.ttc",
    "LeelawUI.ttf",
)  # fmt: skip
"""Common fonts of Linux (one is part of matplotlib), macOS and Windows, for characters that are not in Pillow's own
font. Pillow searches them in the folders of the system; nothing is downloaded."""

_CJK = ("CJK", "HANGUL", "HIRAGANA", "KATAKANA", "HALFWIDTH", "FULLWIDTH", "BOPOMOFO", "IDEOGRAPHIC")
_DEJAVU = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC")
_TEST_SIZE = 16
_reported: set[str] = set()


@lru_cache(maxsize=4096)
def font_for(text: str, size: int) -> tuple[Font, str]:
    """The font that has most of the characters, and the text with ``\\uXXXX`` for those that it does not have.

    Args:
        size: font size in pixels.
    """
    if text.isascii():
        return default_font(size), text.replace(" ", "  ")  # its space is too narrow at small sizes
    text = unicodedata.normalize("NFC", text)  # file names of macOS have their accents and syllables in parts
    file = _best_file(text)
    font, text = _font(size, file), escaped(text, [file])
    return (font, text) if file and font else (default_font(size), text.replace(" ", "  "))


def default_font(size: int) -> Font:
    """Pillow's own font: ASCII and some accents."""
    try:
        return ImageFont.load_default(size)
    except ImportError:  # Pillow without FreeType: a small bitmap font, not scaled
        return ImageFont.load_default()


def can_draw(text: str) -> bool:
    """Whether one installed font has all characters of ``text``."""
    return not _missing(text)


def escaped(text: str, files: Sequence[str]) -> str:
    """``text`` with ``\\uXXXX`` for the characters that none of the font files has ("": Pillow's own font)."""
    return "".join(
        c
        if any(_has_glyph(file, c) for file in files)
        else f"\\u{ord(c):04x}"
        if ord(c) < 65536
        else f"\\U{ord(c):08x}"
        for c in text
    )


def plot_text(text: str) -> str:
    """``text`` for matplotlib: without formulas (``$``), and with ``\\uXXXX`` for characters without a font."""
    text = text.replace("$", r"\$")
    return text if text.isascii() else escaped(text, [PLOT_FONT, _plot_fallback(text)])


def plot_families(texts: Iterable[str]) -> list[str]:
    """Font families for matplotlib's ``fontfamily``: its own, and installed ones for characters that it lacks."""
    from matplotlib import font_manager

    families = ["DejaVu Sans"]
    for file in dict.fromkeys(_plot_fallback(text) for text in texts if not text.isascii()):
        font = _font(_TEST_SIZE, file)
        if file != PLOT_FONT and isinstance(font, ImageFont.FreeTypeFont):
            font_manager.fontManager.addfont(str(font.path))
            families.append(str(font.getname()[0]))
    return families


def _plot_fallback(text: str) -> str:
    """The font file for the characters of ``text`` that matplotlib's font lacks; that font if it has all."""
    rest = "".join(letter for letter in text if not _has_glyph(PLOT_FONT, letter))
    return (_best_file(rest) or PLOT_FONT) if rest else PLOT_FONT


def report_missing_glyphs(texts: Iterable[str], reporter: Reporter) -> None:
    """Report which font to install for texts that no installed font can draw: once per font and process."""
    letters = {text: _missing(text) for text in texts if not text.isascii()}
    names = [text for text, missing in letters.items() if missing]
    packages = {_package(letter) for missing in letters.values() for letter in missing}
    if names and reporter.sinks and not packages <= _reported:
        _reported.update(packages)
        reporter.warning(
            f"no installed font has the characters of {counted(len(names), 'name')} ({listed(names, 60)}); in images "
            f"these characters are written as \\uXXXX. {_remedy(sorted(packages))}"
        )


@lru_cache(maxsize=4096)
def _missing(text: str) -> str:
    """The characters that the best font for ``text`` does not have."""
    text = unicodedata.normalize("NFC", text)
    if text.isascii():
        return ""
    file = _best_file(text)
    return "".join(letter for letter in text if not _has_glyph(file, letter))


@lru_cache(maxsize=4096)
def _best_file(text: str) -> str:
    """The font file that has most of the characters; the first of equal ones, "" for Pillow's own."""
    scripts = dict.fromkeys(_script(letter).title() for letter in text if not letter.isascii())
    files = ["", *FONT_FILES, *(f"NotoSans{script}-Regular.ttf" for script in scripts)]
    best, most = "", -1
    for file in files:
        count = sum(_has_glyph(file, letter) for letter in text) if not file or _font(_TEST_SIZE, file) else -1
        if count > most:
            best, most = file, count
        if most == len(text):
            break
    return best


@lru_cache(maxsize=256)
def _font(size: int, file: str) -> Font | None:
    """The font ``file``; None if it is not installed."""
    if not file:
        return default_font(size)
    try:
        if size != _TEST_SIZE:  # the folders are searched once
            known = _font(_TEST_SIZE, file)
            return known.font_variant(size=size) if isinstance(known, ImageFont.FreeTypeFont) else None
        if file == PLOT_FONT:
            package = find_spec("matplotlib")  # located, not imported
            file = str(Path(package.origin).parent / file) if package and package.origin else file
        return ImageFont.truetype(file, size)
    except (ImportError, OSError):  # Pillow without FreeType; no such font
        return None


@lru_cache(maxsize=16384)
def _has_glyph(file: str, letter: str) -> bool:
    """Whether a font has a character: a missing one is drawn like an unassigned code point."""
    font = _font(_TEST_SIZE, file)
    if letter.isascii() or not isinstance(font, ImageFont.FreeTypeFont):
        return letter.isascii()
    if unicodedata.category(letter) == "Cf":  # joiners and marks of direction are not drawn
        return True
    missing, drawn = font.getmask("\uffff"), font.getmask(letter)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split()[0]


def _package(letter: str) -> str:
    """The Debian package of a font with this character."""
    script = _script(letter)
    if script.startswith(_CJK):
        return "fonts-noto-cjk"
    return "fonts-dejavu" if script in _DEJAVU else "fonts-noto-core"


def _remedy(packages: list[str]) -> str:
    if sys.platform.startswith("linux"):
        return f"Install {' and '.join(packages)} (Debian, Ubuntu: apt install {' '.join(packages)})"
    fonts = ["Noto Sans CJK" if "cjk" in package else "Noto Sans" for package in packages]
    return f"Install the font {' and '.join(dict.fromkeys(fonts))} from fonts.google.com/noto"
