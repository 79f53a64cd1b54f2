"""Images in memory: what is accepted, and what is refused with a remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detseg.errors import DataError
from detseg.pixels import to_pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
CHANNELS_FIRST = torch.from_numpy(PIXELS).permute(2, 0, 1)


@pytest.mark.parametrize(
    "image",
    [PIXELS, PIXELS / 255, (PIXELS / 255).astype(np.float16), CHANNELS_FIRST, CHANNELS_FIRST / 255.0,
     CHANNELS_FIRST.double() / 255, Image.fromarray(PIXELS)],
)  # fmt: skip
def test_colours(image: Any) -> None:
    pixels, orientation = to_pixels(image, "a")
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, PIXELS)
    assert orientation == 1


@pytest.mark.parametrize(
    "image", [PIXELS[..., 0], PIXELS[..., :1], CHANNELS_FIRST[:1], Image.fromarray(PIXELS[..., 0])]
)
def test_grey_is_repeated(image: Any) -> None:
    np.testing.assert_array_equal(to_pixels(image, "a")[0], PIXELS[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS.astype(np.float32), r"a: values from \d+ to 2\d\d; floats must be in \[0, 1\]: divide"),
        (CHANNELS_FIRST.float(), "divide 0..255 by 255"),
        (CHANNELS_FIRST / 255.0 * torch.nan, "remove Normalize"),
        (PIXELS.astype(np.uint16), r"array of uint16 \[4, 5, 3\]; convert it to uint8"),
        (CHANNELS_FIRST.long(), r"tensor of torch.int64 \[3, 4, 5\]; convert it to uint8"),
        (PIXELS > 9, "array of bool"),
        (torch.from_numpy(PIXELS), r"image.permute\(2, 0, 1\)"),
        (PIXELS.transpose(2, 0, 1), r"image.transpose\(1, 2, 0\)"),
        (CHANNELS_FIRST[None], "as a list"),
        (PIXELS[None], "as a list"),
        (np.zeros((4, 5, 4), np.uint8), "alpha"),
        (torch.zeros(4, 5, 5), "alpha"),
        (torch.zeros(5, 5), "tensor of torch.float32"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        ([PIXELS], "the image is a list"),
        (Image.fromarray(PIXELS[..., 0].astype(np.float32)), "floating-point values cannot be converted to 8 bits"),
        (Image.fromarray(np.full((2, 2), 70000, np.int32)), "70000..70000 do not fit 16 bits"),
    ],
)
def test_refused(image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_pixels(image, "a")


def test_16_bits_are_reduced_to_their_high_byte_and_the_image_is_not_changed() -> None:
    image = Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16))
    assert to_pixels(image, "a")[0][0, :, 0].tolist() == [0, 0, 1, 255]
    palette = Image.fromarray(PIXELS).convert("P")
    palette.info["transparency"] = 0
    to_pixels(palette, "a")
    assert palette.info["transparency"] == 0
    assert palette.mode == "P"
