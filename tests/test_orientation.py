"""All eight EXIF orientations of pixels, boxes, points and RLEs, applied and undone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from detseg.errors import DataError
from detseg.images import decode_image, read_header
from detseg.masks import mask_to_rle, rle_to_mask
from detseg.orientation import (
    orient_boxes,
    orient_image,
    orient_points,
    orient_rle,
    unorient_boxes,
    unorient_points,
    unorient_rle,
    upright_hw,
)

HW = (7, 11)
ALL = range(1, 9)


def stored_pixels() -> np.ndarray:
    return np.arange(HW[0] * HW[1] * 3, dtype=np.uint8).reshape(*HW, 3)


def cut(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    x, y, w, h = box.astype(int)
    return image[y : y + h, x : x + w]


@pytest.mark.parametrize("orientation", ALL)
def test_pixels_equal_pillow(orientation: int) -> None:
    image = Image.fromarray(stored_pixels())
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    upright = orient_image(stored_pixels(), orientation)
    np.testing.assert_array_equal(upright, expected)
    assert upright.shape[:2] == upright_hw(HW, orientation)
    assert upright.flags.c_contiguous


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize(
    "boxes", [np.zeros((0, 4)), np.array([[0.0, 0, 11, 7]]), np.array([[2.0, 1, 3, 4], [9, 5, 2, 2]])]
)
def test_boxes_cover_the_same_pixels(orientation: int, boxes: np.ndarray) -> None:
    stored = stored_pixels()
    upright = orient_image(stored, orientation)
    oriented = orient_boxes(boxes, HW, orientation)
    assert oriented.shape == boxes.shape
    for before, after in zip(boxes, oriented, strict=True):
        np.testing.assert_array_equal(cut(upright, after), orient_image(cut(stored, before), orientation))
    np.testing.assert_array_equal(unorient_boxes(oriented, HW, orientation), boxes)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_control_boxes_without_orientation_differ(orientation: int) -> None:
    """The comparison above fails if the box is not transformed."""
    stored, box = stored_pixels(), np.array([2.0, 1, 3, 4])
    upright = orient_image(stored, orientation)
    assert not np.array_equal(cut(upright, box), orient_image(cut(stored, box), orientation))


@pytest.mark.parametrize("orientation", ALL)
def test_fractional_coordinates_round_trip(orientation: int) -> None:
    rng = np.random.default_rng(0)
    boxes, points = rng.uniform(0, 5, (20, 4)), rng.uniform(0, 7, (3, 5, 2))
    oriented = orient_boxes(boxes, HW, orientation)
    np.testing.assert_array_equal(np.sort(oriented[:, 2:]), np.sort(boxes[:, 2:]))  # sizes stay exact
    np.testing.assert_allclose(unorient_boxes(oriented, HW, orientation), boxes, atol=1e-12)
    restored = unorient_points(orient_points(points, HW, orientation), HW, orientation)
    np.testing.assert_allclose(restored, points, atol=1e-12)


@pytest.mark.parametrize("orientation", ALL)
def test_points_are_corners_of_boxes(orientation: int) -> None:
    box = np.array([[2.0, 1, 3, 4]])
    corners = orient_points(np.array([[2.0, 1], [5, 5]]), HW, orientation)
    x, y, w, h = orient_boxes(box, HW, orientation)[0]
    np.testing.assert_array_equal(corners.min(axis=0), [x, y])
    np.testing.assert_array_equal(corners.max(axis=0), [x + w, y + h])


@pytest.mark.parametrize("orientation", ALL)
def test_rle(orientation: int) -> None:
    mask = np.random.default_rng(1).random(HW) > 0.5
    rle = mask_to_rle(mask)
    oriented = orient_rle(rle, orientation)
    np.testing.assert_array_equal(rle_to_mask(oriented), orient_image(mask, orientation))
    assert unorient_rle(oriented, orientation) == rle


@pytest.mark.parametrize("orientation", [0, 9, -1])
def test_invalid_orientation_is_an_error(orientation: int) -> None:
    with pytest.raises(DataError, match=f"orientation {orientation} is not one of 1..8"):
        upright_hw(HW, orientation)
    with pytest.raises(DataError, match=r"1\.\.8"):
        unorient_points(np.zeros((1, 2)), HW, orientation)


@pytest.mark.parametrize("name", ["Landscape_1.jpg", "Landscape_2.jpg", "Landscape_3.jpg", "Landscape_6.jpg"])
def test_real_files_are_upright(shared_data: Path, name: str) -> None:
    folder = shared_data / "exif_orientation"
    header = read_header(folder / name)
    upright = decode_image(folder / name)
    reference = decode_image(folder / "Landscape_1.jpg").astype(float)
    assert upright.shape[:2] == upright_hw(header.size_hw, header.orientation) == reference.shape[:2]
    np.testing.assert_array_equal(upright, orient_image(decode_image(folder / name, upright=False), header.orientation))
    assert np.abs(upright - reference).mean() < 10  # the same image: upside down, the difference is much larger
    assert np.abs(upright[::-1, ::-1] - reference).mean() > 20
