"""Check the container of an image file before a decoder reads it: sizes of chunks, number of parts, scans.

Decoders believe a file: a length of gigabytes in a PNG of 49 bytes is allocated, a JPEG is decoded once for each of its
scans. What is refused here would need more than 2 GiB of memory or about ten seconds.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from detseg.errors import DataError

MAX_BYTES = 2**29
"""Largest image file that is read (512 MiB)."""

MAX_PARTS = 100_000
"""Most chunks of a PNG, segments of a JPEG, or strips and tiles of a TIFF; the largest real files have some 40,000."""

MAX_SCANNED = 2_000_000_000
"""Most pixels times colour channels that the scans of a JPEG decode: all 100 million pixels in 14 scans, some need 40
bytes each."""

MAX_COMPRESSED_TEXTS = 100
"""Most compressed texts and colour profiles of a PNG: libpng unpacks each to 8 MB."""

MAX_TAG_BYTES = 2**26
"""Most bytes that the tags of a TIFF, or of EXIF data, point to, beside the size of the file."""

MAX_PLAIN_VALUES = 10_000_000
"""Most values of an image that is decoded value by value in Python: plain (text) PNM and run-length encoded BMP."""

MAX_TILE = 2**27
"""Most pixels of one tile of a TIFF."""

MAX_COMMENTS = 1000
"""Most comments in a plain PNM."""

REPLACE = "replace it with an intact copy or remove it"
_SAVE_AGAIN = "save it again with another program"

_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXIF = b"Exif\0\0"
# A JPEG marker that ends or interrupts entropy-coded data: not a stuffed zero, a restart marker or fill bytes.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_ARITHMETIC = 4  # times slower than Huffman codes
_SCAN, _END, _NO_LENGTH = 0xDA, 0xD9, (0x01, *range(0xD0, 0xDA))
_BMP_RUNS = (1, 2)
_PNM = {b"P1": 1, b"P2": 1, b"P3": 3, b"P4": 1, b"P5": 1, b"P6": 3}
_TAG_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # by type
_WIDTH, _HEIGHT, _COMPRESSION, _STRIPS, _ROWS, _TILE_WIDTH, _TILE_HEIGHT, _TILES = (
    256, 257, 259, 273, 278, 322, 323, 324,
)  # fmt: skip
_TIFF_JPEG = (6, 7)


def check_header(file: BinaryIO, name: str) -> None:
    """Check what comes before the pixels; few bytes are read.

    Args:
        file: an image file of any format; left at its start.
        name: the image's name in error messages.

    Raises:
        DataError: the file is larger than ``MAX_BYTES``, or its header points outside of it or has too many parts.
    """
    size = file.seek(0, io.SEEK_END)
    if size > MAX_BYTES:
        raise DataError(f"{name}: {size >> 20} MiB; image files of at most {MAX_BYTES >> 20} MiB are read: tile it")
    file.seek(0)
    head = file.read(34)
    if head.startswith(_PNG):
        _check_chunks(file, size, name, with_pixels=False)
    elif head.startswith(_JPEG):
        _check_segments(file, name)
    elif head.startswith(_TIFF):
        _check_tags(file, name)
        _check_strips(file, name)
    elif head.startswith(_BMP):
        _check_bmp(head, size, name)
    elif head[:2] in _PNM:
        _check_pnm(file, size, name)
    file.seek(0)


def check_pixels(data: bytes, name: str) -> None:
    """Check the rest of a file whose header was checked, before its pixels are decoded.

    Raises:
        DataError: a PNG with a chunk that is longer than the file; a JPEG without an end, or with too many scans; a
            TIFF of such JPEGs; a plain PNM with too many comments.
    """
    if data.startswith(_PNG):
        _check_chunks(io.BytesIO(data), len(data), name, with_pixels=True)
    elif data.startswith(_JPEG):
        _check_scans(data, name)
    elif data.startswith(_TIFF):
        _check_tiff_scans(data, name)
    elif data[:2] in (b"P1", b"P2", b"P3") and data.count(b"#") > MAX_COMMENTS:
        raise DataError(f"{name}: more than {MAX_COMMENTS} comments in a plain PNM; {_SAVE_AGAIN}")


def pnm_numbers(file: BinaryIO) -> list[int]:
    """The numbers in the header of a PNM: width, height and, of all but bitmaps, the maximum; fewer if it is corrupt.

    The file is left behind them; comments and spaces may take 64 KiB.
    """
    file.seek(0)
    head = file.read(2**16)
    number = 2 if head[1:2] in b"14" else 3
    numbers: list[int] = []
    position = 2
    while len(numbers) < number:
        while (byte := head[position : position + 1]) and (byte.isspace() or byte == b"#"):
            end = re.compile(rb"[\r\n]").search(head, position) if byte == b"#" else None
            position = end.end() if end else len(head) if byte == b"#" else position + 1
        digits = re.compile(rb"\d{1,10}").match(head, position)
        if digits is None:
            break
        numbers.append(int(digits[0]))
        position = digits.end()
    file.seek(position + 1)
    return numbers


def _check_chunks(file: BinaryIO, size: int, name: str, *, with_pixels: bool) -> None:
    """The chunks of a PNG up to its pixels, or all."""
    position, texts = len(_PNG), 0
    for number in range(MAX_PARTS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return  # decoders notice a missing end
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if position + 8 + length > size:
            raise DataError(
                f"{name}: corrupt or truncated PNG file: its chunk {kind.decode('ascii', 'replace')!r} of {length} "
                f"bytes is longer than the rest of the file, {size - position - 8}; {REPLACE}"
            )
        if (kind == b"IHDR") != (number == 0):
            raise DataError(f"{name}: corrupt PNG file: IHDR is not its first and only header; {REPLACE}")
        texts += kind in (b"zTXt", b"iTXt", b"iCCP")
        if texts > MAX_COMPRESSED_TEXTS:
            raise DataError(f"{name}: a PNG with more than {MAX_COMPRESSED_TEXTS} compressed texts; {_SAVE_AGAIN}")
        if kind == b"IEND" or (kind == b"IDAT" and not with_pixels):
            return
        position += 12 + length
    raise _too_many(name, "PNG", "chunks")


def _check_segments(file: BinaryIO, name: str) -> None:
    """The segments of a JPEG up to its first scan, and the EXIF data in them."""
    position, exif = 2, b""
    for _ in range(MAX_PARTS):
        file.seek(position)
        head = file.read(64)
        marker = _JPEG_MARKER.search(head)
        if marker is None or marker.start():
            position += marker.start() if marker else max(len(head) - 1, 1)
            if not head:
                break  # decoders notice a missing end
            continue
        if head[1] == _SCAN:
            break
        length = 0 if head[1] in _NO_LENGTH else max(int.from_bytes(head[2:4], "big"), 2)
        if head[4 : 4 + len(_EXIF)] == _EXIF:
            file.seek(position + 4 + len(_EXIF))
            exif += file.read(length - 2 - len(_EXIF))
            if len(exif) > MAX_TAG_BYTES // 4:
                raise DataError(f"{name}: a JPEG with {len(exif) >> 20} MiB of EXIF data; {_SAVE_AGAIN}")
        position += 2 + length
    else:
        raise _too_many(name, "JPEG", "segments")
    _check_tags(io.BytesIO(exif), name)


def _check_scans(data: bytes, name: str) -> None:
    """An end-of-image marker follows the scans (OpenCV fills missing pixels with grey), and they are not too many.

    The segments are parsed because embedded thumbnails contain such markers, too.
    """
    position, pixels, scanned = 2, 0, 0
    for _ in range(MAX_PARTS):
        match = _JPEG_MARKER.search(data, position)
        if match is None:
            raise DataError(f"{name}: truncated JPEG file: it has no end-of-image marker; {REPLACE}")
        marker = match[1][0]
        if marker == _END and scanned:
            return
        if marker in _NO_LENGTH:
            position = match.end()
            continue
        position = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
        if marker in _FRAMES:
            head = data[match.end() + 3 : match.end() + 7]
            frame = int.from_bytes(head[:2], "big") * int.from_bytes(head[2:], "big")
            pixels = max(pixels, frame * (_ARITHMETIC if marker > 0xC8 else 1))
        if marker == _SCAN:
            channels = data[match.end() + 2 : match.end() + 3]
            scanned += max(pixels, 1) * min(max(channels[0] if channels else 1, 1), 4)
            if scanned > MAX_SCANNED:
                raise DataError(f"{name}: the JPEG decodes its pixels in too many scans; {_SAVE_AGAIN}")
    raise _too_many(name, "JPEG", "segments")


def _check_bmp(head: bytes, size: int, name: str) -> None:
    """The pixels of a BMP are in the file, and not too many if they are run-length encoded."""

    def number(start: int, count: int) -> int:
        return abs(int.from_bytes(head[start : start + count], "little", signed=count == 4))

    if number(14, 4) == 12:  # OS/2
        width, height, bits, compression = number(18, 2), number(20, 2), number(24, 2), 0
    else:
        width, height, bits, compression = number(18, 4), number(22, 4), number(28, 2), number(30, 4)
    if compression in _BMP_RUNS:
        if width * height > MAX_PLAIN_VALUES:
            raise DataError(
                f"{name}: a run-length encoded BMP of {width} x {height} pixels; at most {MAX_PLAIN_VALUES} are read: "
                "convert it to PNG"
            )
    elif width * height * bits // 8 > size:
        raise _truncated(name, "BMP", width, height)


def _check_pnm(file: BinaryIO, size: int, name: str) -> None:
    """The pixels of a PNM are in the file, and not too many if they are text."""
    file.seek(0)
    kind = file.read(2)
    numbers = pnm_numbers(file)
    if len(numbers) < (2 if kind in (b"P1", b"P4") else 3):
        raise DataError(f"{name}: corrupt PNM file: no width, height and maximum in its header; {REPLACE}")
    width, height, values = numbers[0], numbers[1], numbers[0] * numbers[1] * _PNM[kind]
    if kind in (b"P1", b"P2", b"P3"):
        least = values if kind == b"P1" else 2 * values - 1
        if values > MAX_PLAIN_VALUES:
            raise DataError(
                f"{name}: a plain (text) PNM of {values} values; at most {MAX_PLAIN_VALUES} are read: convert it to PNG"
            )
    else:
        least = -(-width // 8) * height if kind == b"P4" else values * (2 if numbers[2] > 255 else 1)
    if size - file.tell() < least:
        raise _truncated(name, "PNM", width, height)


def _entries(file: BinaryIO) -> Iterator[tuple[int, int, int, int, int]]:
    """(tag, number of values, bytes of a value, position of the values, first value) of the first TIFF directory."""
    file.seek(0)
    head = file.read(16)
    order = "little" if head.startswith(b"II") else "big"
    is_big = head[2:4] in (b"+\0", b"\0+")

    def number(content: bytes) -> int:
        return int.from_bytes(content, order)  # type: ignore[arg-type]

    wide, counted, width = (8, 8, 20) if is_big else (4, 2, 12)
    file.seek(min(number(head[8:16] if is_big else head[4:8]), 2**62))
    count = number(file.read(counted))
    table = file.read(min(count, MAX_PARTS) * width)
    for start in range(0, len(table) - width + 1, width):
        entry = table[start : start + width]
        kind, values = number(entry[2:4]), number(entry[4 : 4 + wide])
        unit = _TAG_BYTES[kind] if kind < len(_TAG_BYTES) else 0
        field = entry[4 + wide :]
        inside = unit * values <= wide
        yield number(entry[:2]), values, unit, -1 if inside else number(field), number(field[:unit]) if inside else 0


def _check_tags(file: BinaryIO, name: str) -> None:
    """The tags of a TIFF, or of EXIF data, do not point to more bytes than the file has: they may all point to one
    large part, which is then read once for each."""
    size, total = file.seek(0, io.SEEK_END), 0
    seen = set()
    for tag, values, unit, position, _ in _entries(file):
        if position >= 0 and tag not in seen:
            total += max(min(unit * values, size - position), 0)
        seen.add(tag)
    if total > size + MAX_TAG_BYTES:
        raise DataError(f"{name}: its tags point to {total >> 20} MiB in a file of {size >> 20} MiB; {_SAVE_AGAIN}")


def _check_strips(file: BinaryIO, name: str) -> None:
    """A TIFF has not too many strips or tiles, and none is much larger than the image."""
    tags = {tag: (values, first) for tag, values, _, _, first in _entries(file)}
    if max(tags.get(_STRIPS, (0, 0))[0], tags.get(_TILES, (0, 0))[0]) > MAX_PARTS:
        raise _too_many(name, "TIFF", "strips or tiles")
    width, height = (tags.get(tag, (0, 0))[1] for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    if width * height > MAX_TILE:
        raise DataError(f"{name}: a TIFF with tiles of {width} x {height} pixels; {_SAVE_AGAIN}")


def _check_tiff_scans(data: bytes, name: str) -> None:
    """The JPEGs in a TIFF have not too many scans."""
    tags = {tag: first for tag, _, _, _, first in _entries(io.BytesIO(data))}
    if tags.get(_COMPRESSION) in _TIFF_JPEG:
        height = tags.get(_HEIGHT, 0)
        strip = tags.get(_WIDTH, 0) * min(tags.get(_ROWS) or height, height)
        part = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0) or strip
        if 3 * part * data.count(b"\xff\xda") > MAX_SCANNED:
            raise DataError(f"{name}: the JPEGs in this TIFF have too many scans; {_SAVE_AGAIN}")


def _truncated(name: str, kind: str, width: int, height: int) -> DataError:
    return DataError(
        f"{name}: corrupt or truncated {kind} file: it is shorter than an image of {width} x {height} pixels; {REPLACE}"
    )


def _too_many(name: str, kind: str, what: str) -> DataError:
    return DataError(f"{name}: a {kind} with more than {MAX_PARTS} {what}; {_SAVE_AGAIN}")
