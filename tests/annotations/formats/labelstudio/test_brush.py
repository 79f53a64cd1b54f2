"""Label Studio's encoding of brush masks, against an encoder of its own and a published example."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.annotations.formats.labelstudio.brush import _Bits, brush_rle
from detseg.errors import DataError
from detseg.masks import rle_to_mask

PUBLISHED = [0, 0, 0, 18, 57, 27, 252, 96, 32, 1, 0, 6, 0, 40, 0, 192, 3, 128, 17, 56, 32]
"""Of 1, 1, 1, 1, 2, 3, 5, 6, 7, 8, 4, 4, 4, 4, 4, 4, 4, 4, as the converter of the tool encodes it."""


def encode(values: np.ndarray, literals: bool = False) -> list[int]:
    """Encode bytes: runs of equal values, or all one by one."""
    bits = f"{len(values):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    start = 0
    while start < len(values):
        stop = min(start + 2**16, len(values))
        if not literals:
            changes = np.flatnonzero(values[start:stop] != values[start])
            stop = start + int(changes[0]) if len(changes) else stop
            bits += f"111{stop - start - 1:016b}{values[start]:08b}"
        else:
            bits += f"011{stop - start - 1:016b}" + "".join(f"{value:08b}" for value in values[start:stop])
        start = stop
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


@pytest.mark.parametrize("literals", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_round_trip(literals: bool, share: float) -> None:
    mask = np.random.default_rng(0).random((17, 23)) < share
    alpha = np.where(mask, 255, 90).astype(np.uint8)
    colour = np.stack([alpha, 255 - alpha, alpha, alpha], axis=2)  # only the alpha counts
    rle = brush_rle(encode(colour.ravel(), literals), (17, 23), "a")
    np.testing.assert_array_equal(rle_to_mask(rle), mask)


def test_published_example() -> None:
    """Its 18 values are no pixels; read with the parts of the decoder."""
    bits = _Bits(bytes(PUBLISHED), 32)
    assert bits.read(5) + 1 == 8
    widths = [bits.read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < 18:
        is_run, width = bits.read(1), widths[bits.read(2)]
        length = bits.read(width) + 1
        values += [bits.read(8)] * length if is_run else bits.read_many(8, length).tolist()
    assert values == [1, 1, 1, 1, 2, 3, 5, 6, 7, 8, 4, 4, 4, 4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("numbers", "size_hw", "message"),
    [
        ([], (2, 2), "a: the mask has 0 values, expected 4 for each of the 2 x 2 pixels"),
        ([0, 0, 0, 16], (2, 2), "a: the mask ends after 0 of 16 values"),
        ([0, 0, 0, 256], (2, 2), "not bytes"),
        (PUBLISHED, (2, 2), "18 values"),
        ([255, 255, 255, 252], (2**15, 2**15), "too large"),
    ],
)
def test_corrupt_masks(numbers: list[int], size_hw: tuple[int, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        brush_rle(numbers, size_hw, "a")
