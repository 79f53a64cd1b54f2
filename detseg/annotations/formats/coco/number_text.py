"""Parse lists of decimal numbers from JSON text, without a Python object for each number.

A data set like COCO has forty million coordinates. Each Python float needs 24 bytes and about 50 ns; here the text is
parsed as an array, eight characters of every number at once (after Johnny Lee and Mula's "SWAR" parsing).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_U = np.uint64
_COMMA, _DOT, _OPEN, _CLOSE = b",.[]"
_WHITESPACE = b" \n\r\t"
_MASKS = np.array([0, *((2**64 - 1) << 8 * (8 - n) & (2**64 - 1) for n in range(1, 9))], np.uint64)
"""Entry n selects the last n of eight characters."""
_WHOLE = _U(int.from_bytes(b"00000000", "little"))
_DECIMAL = _U(int.from_bytes(b"00000.00", "little"))
_NO_DECIMALS = _U(int.from_bytes(b"\0\0\0\0\0.00", "little"))
_ONE_DECIMAL = _U(ord("0") << 56)


@dataclass(frozen=True)
class Rings:
    """The numbers of several lists of rings.

    Attributes:
        numbers: int32 [M], of all rings; multiplied by 100 unless parsed as whole numbers.
        lengths: int64 [R], number of values in each ring, at least one.
        counts: int64 [N], number of rings in each list, at least one.
    """

    numbers: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def read_rings(text: bytes, *, whole: bool = False) -> Rings | None:
    """Parse ``[[1,2.5,...],[...]],[[...]],``: N lists of lists of numbers, each followed by a comma.

    Args:
        text: each of the N lists must be valid JSON; its content is checked here.
        whole: numbers have at most eight digits and no decimals; else at most five digits and two decimals.

    Returns:
        None if one is not a list of lists of such numbers, or a list is empty: then a general JSON parser is needed.
    """
    if any(character in text for character in (b" ", b"\n", b"\r", b"\t")):
        text = text.translate(None, _WHITESPACE)
    characters = np.frombuffer(text, np.uint8)
    opening, closing = np.flatnonzero(characters == _OPEN), np.flatnonzero(characters == _CLOSE)
    if not len(opening) or len(opening) != len(closing) or closing[-1] != len(text) - 2:
        return None
    begins = opening[characters[opening + 1] != _OPEN]  # of the rings
    ends = closing[np.minimum(np.searchsorted(closing, begins), len(closing) - 1)]
    between = begins[1:] - ends[:-1]  # "],[" in one list, "]],[[" from one to the next, nothing else
    next_list = (between == 4) & (characters[ends[:-1] + 1] == _CLOSE)
    if begins[0] != 1 or ends[-1] != len(text) - 3 or not ((between == 2) | next_list).all():
        return None
    commas = np.flatnonzero(characters == _COMMA)  # one after every number, and one after every empty ring
    last = np.searchsorted(commas, ends)
    first = np.concatenate([[0], last[:-1] + 1])
    stop = commas.copy()
    stop[last] = ends
    length = np.empty_like(stop)
    length[1:] = stop[1:] - commas[:-1] - 1
    length[first] = stop[first] - begins - 1
    if length.min() < 1:
        return None
    eight = np.ndarray((len(text) + 1,), "<u8", b"\0" * 8 + text, strides=(1,))[stop]  # the characters before stop
    numbers = _number(eight, length, _WHOLE) if whole else _number(*_with_two_decimals(eight, length), _DECIMAL)
    if numbers is None:
        return None
    bounds = np.flatnonzero(np.concatenate([[True], next_list, [True]]))
    return Rings(numbers, last - first + 1, np.diff(bounds))


def _with_two_decimals(
    eight: npt.NDArray[np.uint64], length: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The last eight characters of the numbers, and their lengths, with 7.5 and 7 rewritten as 7.50 and 7.00."""
    others = np.flatnonzero((eight >> _U(40)).astype(np.uint8) != _DOT)
    if len(others):
        selected = eight[others]
        one_decimal = (selected >> _U(48)).astype(np.uint8) == _DOT
        eight[others] = np.where(one_decimal, selected >> _U(8) | _ONE_DECIMAL, selected >> _U(24) | _NO_DECIMALS)
        length[others] += np.where(one_decimal, 1, 3)
    return eight, length


def _number(
    eight: npt.NDArray[np.uint64], length: npt.NDArray[np.int64], form: np.uint64
) -> npt.NDArray[np.int32] | None:
    """int32 [M]: the digits as a number, without the dot; None if the last ``length`` characters of a number do not
    match the pattern ``form``."""
    if length.max() > 8:
        return None
    eight ^= form  # digits become 0 to 9, the dot 0
    eight &= _MASKS.take(length)
    if (((eight + _U(0x7676767676767676)) | eight) & _U(0x8080808080808080)).any():
        return None
    if form == _DECIMAL:  # remove the gap of the dot
        decimals = eight >> _U(48) << _U(48)
        eight &= _U(0x000000FFFFFFFFFF)
        eight <<= _U(8)
        eight |= decimals
    eight *= _U(10 * 2**8 + 1)  # pairs of digits, the first character in the lowest byte
    eight >>= _U(8)
    eight &= _U(0x00FF00FF00FF00FF)
    eight *= _U(100 * 2**16 + 1)  # groups of four digits
    eight >>= _U(16)
    eight &= _U(0x0000FFFF0000FFFF)
    eight *= _U(10000 * 2**32 + 1)  # all eight digits
    eight >>= _U(32)
    return eight.astype(np.int32)
