"""Decode every image file once, in several threads, and keep what the checks need to know of its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detseg.annotations.groups import file_name
from detseg.annotations.table import AnnotationTable
from detseg.doctor.image_hash import thumbnail
from detseg.errors import DataError
from detseg.images import EncodedImage
from detseg.media.files import read_bytes
from detseg.pixel_values import Range
from detseg.runtime.reporter import progress

UInt8 = npt.NDArray[np.uint8]

BLACK = 8
"""Value of 255 up to which a pixel counts as black."""
BLACK_SHARE = 0.999
"""Share of black pixels from which an image is nearly black; the others may be noise or dead pixels."""

THREADS = 4
"""Decoders release the GIL; each thread holds one full image in memory."""

STEP = 16
"""Every sixteenth row and column is looked at first: most images are neither constant, nor black, nor grey there, so
that the other pixels need not be read."""


@dataclass(frozen=True)
class ImageFacts:
    """What one image file contains. Of a file that cannot be decoded only ``path`` and ``error`` are known.

    Attributes:
        path: of the file; ``image``: first row of the table that has it.
        error: why it cannot be decoded; "" if it can. ``is_missing``: there is no such file.
        damage: what the decoder said about damaged data that it has replaced; "" for none.
        size_hw: height and width of the stored pixels.
        digest: SHA-256 of the file, so that equal files are found without reading them again.
        is_outside: most of its values are outside the value range.
        is_constant: all pixels have the same value.
        is_black: nearly all pixels are black.
        is_grey: the three channels are equal.
        thumbnail: uint8 [32, 32], of which near-duplicates are found; None if it cannot be decoded.
    """

    path: Path
    image: int
    error: str = ""
    is_missing: bool = False
    damage: str = ""
    size_hw: tuple[int, int] = (0, 0)
    digest: bytes = b""
    is_outside: bool = False
    is_constant: bool = False
    is_black: bool = False
    is_grey: bool = False
    thumbnail: UInt8 | None = None


def image_facts(
    table: AnnotationTable, value_range: Range | None = None, *, threads: int = THREADS
) -> list[ImageFacts]:
    """Decode all image files of ``table`` in full, each once, with a progress bar on a terminal.

    Images without a path of their own (see ``AnnotationTable.has_path``) are not decoded. Never raises for a bad image.

    Args:
        value_range: of images with more than 8 bits per channel; see ``detseg.doctor.image_values``.
        threads: number of images that are decoded at the same time.
    """
    rows = first_rows(table)
    with ThreadPoolExecutor(threads) as pool:
        facts = pool.map(lambda item: _facts(item[0], item[1], file_name(table, item[1]), value_range), rows.items())
        return list(progress(facts, "decoding images", total=len(rows)))


def first_rows(table: AnnotationTable) -> dict[Path, int]:
    """Image file -> the first row that has it, in the order of the table."""
    rows: dict[Path, int] = {}
    for row, media in enumerate(table.media.tolist()):
        if table.has_path(row):
            rows.setdefault(table.root / media, row)
    return rows


def digests(facts: Sequence[ImageFacts]) -> dict[Path, bytes]:
    """File -> SHA-256, of the files that could be decoded."""
    return {each.path: each.digest for each in facts if each.digest}


def equal_files(facts: Sequence[ImageFacts]) -> list[list[ImageFacts]]:
    """The groups of files with the same bytes, each in the order of the table."""
    groups: dict[bytes, list[ImageFacts]] = {}
    for each in facts:
        if each.digest:
            groups.setdefault(each.digest, []).append(each)
    return [group for group in groups.values() if len(group) > 1]


def _facts(path: Path, image: int, name: str, value_range: Range | None) -> ImageFacts:
    try:
        data = read_bytes(path)
        encoded = EncodedImage(data, name=name)
        pixels = encoded.decode(upright=False, value_range=value_range)
    except FileNotFoundError:
        return ImageFacts(path, image, "no such file", is_missing=True)
    except (DataError, OSError) as error:
        return ImageFacts(path, image, str(error))
    # A new check of pixels belongs here: the pixels are in memory only now.
    is_outside = bool(encoded.note) and value_range is not None
    return ImageFacts(
        path,
        image,
        damage=encoded.damage,
        size_hw=(pixels.shape[0], pixels.shape[1]),
        digest=hashlib.sha256(data).digest(),
        is_outside=is_outside,
        is_constant=_all_pixels(_equals_first, pixels),
        is_black=_is_black(pixels),
        is_grey=_all_pixels(_has_equal_channels, pixels),
        thumbnail=thumbnail(pixels),
    )


def _all_pixels(test: Callable[[UInt8, UInt8], bool], pixels: UInt8) -> bool:
    """Whether ``test`` is true for all pixels; a sample of them is tested first."""
    first = pixels[0, 0]
    return test(pixels[::STEP, ::STEP], first) and test(pixels, first)


def _equals_first(pixels: UInt8, first: UInt8) -> bool:
    return bool((pixels == first).all())


def _has_equal_channels(pixels: UInt8, first: UInt8) -> bool:
    red = pixels[..., 0]
    return bool((red == pixels[..., 1]).all() and (red == pixels[..., 2]).all())


def _is_black(pixels: UInt8) -> bool:
    sample = pixels[::STEP, ::STEP]
    if (sample.max(axis=2) <= BLACK).mean() < BLACK_SHARE - 0.05:
        return False
    return bool((pixels.max(axis=2) <= BLACK).mean() >= BLACK_SHARE)
