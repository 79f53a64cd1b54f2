"""Decode the run-length encoding of Label Studio's brush: packed bits, as ``@thi.ng/rle-pack`` writes them.

A header of 32 + 5 + 4 x 4 bits: the number of values, the bits of a value less 1, and four bit widths less 1. Then
runs: one bit (1: one value repeated, 0: values one by one), two bits that choose a width, the length less 1 in that
width, and one value or as many as the length. The values are those of RGBA pixels, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.images import MAX_PIXELS
from detseg.postprocess import mask_to_box_rle
from detseg.structures import RLE

OPAQUE = 128
"""Alpha from which a pixel belongs to the mask: the rims of a brush are half transparent."""

_CHANNELS = 4
_AGAIN = "draw the mask again, or remove it"


def brush_rle(numbers: Sequence[int], size_hw: tuple[int, int], where: str) -> RLE:
    """The mask of a brush as a compressed RLE.

    Args:
        numbers: the bytes, 0..255.
        size_hw: height and width that the file states for the image.
        where: prefix of error messages.

    Raises:
        DataError: not bytes; another number of values than ``size_hw`` has, more than ``MAX_PIXELS`` pixels, or values
            that end before the image does.
    """
    height, width = size_hw
    if not all(0 <= number <= 255 for number in numbers):
        raise DataError(f"{where}: the mask has numbers that are not bytes (0..255); {_AGAIN}")
    if height * width > MAX_PIXELS:
        raise DataError(f"{where}: a mask of {width} x {height} pixels is too large; cut the image into tiles")
    data = bytes(numbers)
    stated = int.from_bytes(data[:4], "big")
    if stated != height * width * _CHANNELS:
        raise DataError(
            f"{where}: the mask has {stated} values, expected {_CHANNELS} for each of the {width} x {height} pixels; "
            f"{_AGAIN}"
        )
    return mask_to_box_rle(_alpha(data, height * width, where).reshape(height, width))


def _alpha(data: bytes, pixels: int, where: str) -> npt.NDArray[np.bool_]:
    """Whether the alpha of each pixel is at least ``OPAQUE``: bool [pixels]."""
    bits = _Bits(data, 32)
    value_bits = bits.read(5) + 1
    widths = [bits.read(4) + 1 for _ in range(4)]
    alpha = np.zeros(pixels, np.bool_)
    start, total = 0, pixels * _CHANNELS
    while start < total:
        if bits.position >= bits.end:
            raise DataError(f"{where}: the mask ends after {start} of {total} values; {_AGAIN}")
        is_run = bits.read(1)
        length = bits.read(widths[bits.read(2)]) + 1
        stop = min(start + length, total)
        # Alpha is the last value of each pixel: pixel p is complete if 4 p + 3 is in start..stop.
        first, last = start // _CHANNELS, stop // _CHANNELS
        if is_run:
            if bits.read(value_bits) >= OPAQUE:
                alpha[first:last] = True
        else:
            values = bits.read_many(value_bits, stop - start)
            alphas = values[_CHANNELS * first + 3 - start :: _CHANNELS][: last - first]
            alpha[first : first + len(alphas)] = alphas >= OPAQUE
        start = stop
    return alpha


class _Bits:
    """Numbers of any bit width, one after the other, the highest bit first; zeros behind the end."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position
        self.end = 8 * len(data)

    def read(self, width: int) -> int:
        first, offset = divmod(self.position, 8)
        window = self._data[first : first + 8].ljust(8, b"\0")
        self.position += width
        return int.from_bytes(window, "big") >> (64 - offset - width) & ((1 << width) - 1)

    def read_many(self, width: int, number: int) -> npt.NDArray[np.int64]:
        """``number`` values; fewer if the data end before."""
        number = min(number, max(self.end - self.position, 0) // width)
        first, offset = divmod(self.position, 8)
        last = -(-(self.position + number * width) // 8)
        all_bits = np.unpackbits(np.frombuffer(self._data, np.uint8)[first:last])
        bits = all_bits[offset : offset + number * width].reshape(number, width)
        self.position += number * width
        return bits.astype(np.int64) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))
