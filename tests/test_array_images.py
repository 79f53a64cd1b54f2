"""Images in .npy files: every shape and type, the same pixels as from PNG, and hostile headers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.annotations.listing import is_image
from detseg.errors import DataError
from detseg.images import EncodedImage, decode_image, read_header
from detseg.value_range import find_value_range

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
GREY = RGB[..., 0]
GREYS = np.repeat(GREY[..., None], 3, axis=2)


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREYS),
        (GREY[..., None], GREYS),
        (RGB, RGB),
        (RGB.transpose(2, 0, 1), RGB),
        (np.asfortranarray(RGB), RGB),
        (np.concatenate([RGB, RGB[..., :1]], axis=2), RGB),  # alpha
        (RGB[:3, :3], RGB[:3, :3]),  # the last axis decides
        (GREY > 9, np.repeat(((GREY > 9) * np.uint8(255))[..., None], 3, axis=2)),
        (GREY.astype(np.uint16) * 257, GREYS),  # the high byte
        (GREY.astype(">u2") * 257, GREYS),
        (GREY.astype(np.int64) * 257, GREYS),
    ],
)
def test_shapes_and_types(array: Any, expected: Any) -> None:
    data = npy(array)
    pixels = decode_image(data)
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.flags.c_contiguous
    assert read_header(data).size_hw == expected.shape[:2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16, np.int16, np.int64])
@pytest.mark.parametrize("values", [GREY, RGB], ids=["grey", "colour"])
def test_values_need_a_range(values: Any, dtype: Any) -> None:
    deep = EncodedImage(npy(values.astype(dtype)))
    assert deep.is_deep
    pixels = deep.decode(value_range=(0, 255))
    assert np.abs(pixels.astype(int) - (GREYS if values is GREY else RGB)).max() <= 1
    if np.dtype(dtype).kind == "f":
        with pytest.raises(DataError, match=r"a.npy: floating-point values in a NPY file .*--value-range"):
            decode_image(npy(values.astype(dtype)), name="a.npy")


def test_the_range_of_training_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", (GREY / 255).astype(np.float32))
    found = find_value_range([tmp_path / "a.npy"])
    assert found is not None
    assert (found.kinds, found.deep) == ("float32", 1)
    assert found.range == pytest.approx((0, 1), abs=0.03)


def header(text: str, size: int = 100) -> bytes:
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(size)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(np.array([1, "a"], dtype=object), allow_pickle=True), "unpickling can run any code"),
        (npy(np.zeros(3, [("a", int)])), "neither numbers nor text"),
        (npy(np.zeros((2, 2, 2, 3))), r"\[2, 2, 2, 3\] is no image"),
        (npy(np.zeros((5, 6, 2))), r"\[5, 6, 2\] is no image"),
        (npy(np.zeros((5, 6), np.complex64)), "neither numbers nor text"),
        (npy(np.array(["a"])), "is no image"),
        (npy(np.zeros((0, 6), np.uint8)), "has no area"),
        (npy(RGB)[:-1], r"shape \[6, 8, 3\] of uint8 needs 272 bytes, the file has 271"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (30000, 30000), }"), "needs 900000"),
        (header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'9' * 5000}, 3), }}"), "corrupt or truncated"),
        (
            header("{'descr': '|u1', 'fortran_order': False, 'shape': (0, " + "9" * 19 + "), }"),
            "no area|too large|at most",
        ),
        (header("{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,), }"), "is not known|needs"),
        (header("__import__('os')"), "neither numbers nor text"),
        (header("(" * 9000), "neither numbers nor text"),
        (b"\x93NUMPY", "not an array of NumPy"),
        (b"\x93NUMPY\x09\0" + bytes(20), "corrupt .npy file, or of a later version"),
    ],
)
def test_hostile_files(data: bytes, message: str) -> None:
    for function in (read_header, decode_image):
        with pytest.raises(DataError, match=message) as caught:
            function(data, name="a.npy")
        assert str(caught.value).startswith("a.npy: ")


def test_nan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 48 values are NaN or infinite"):
        decode_image(npy(np.where(np.arange(48).reshape(6, 8) == 3, np.nan, 1.0)), value_range=(0, 1))


def test_annotations_are_no_images() -> None:
    assert [is_image(f"a/x{suffix}") for suffix in (".npy", ".NPY", ".boxes.npy", ".label.npy", ".masks.npy")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_the_same_pixels_as_png() -> None:
    png = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_image(npy(RGB)), decode_image(png))
