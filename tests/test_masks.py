"""Masks compared with pycocotools and torchvision, and the input checks before pycocotools."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detseg.errors import DataError
from detseg.masks import (
    check_polygons,
    check_rle,
    mask_to_rle,
    masks_to_boxes,
    pack_bits,
    rasterize,
    rasterize_all,
    rle_crop,
    rle_to_mask,
    segmentation_area,
    segmentation_box,
    unpack_bits,
)

HW = (20, 30)


def random_masks(number: int, size_hw: tuple[int, int] = HW, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((number, *size_hw)) > 0.6).astype(np.uint8)


@pytest.mark.parametrize(
    "mask", [np.zeros(HW), np.ones(HW, bool), random_masks(1)[0] * 255, random_masks(1)[0][:, ::2]]
)
def test_rle_round_trip(mask: np.ndarray) -> None:
    rle = mask_to_rle(mask)
    assert rle["size"] == list(mask.shape)
    decoded = rle_to_mask(rle)
    np.testing.assert_array_equal(decoded, mask != 0)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("number", [0, 1, 7, 8, 9, 16, 17, 300])
def test_packed_equals_unpacked(number: int) -> None:
    masks = random_masks(number)
    planes = pack_bits(masks)
    assert planes.shape == (-(-number // 8), *HW)
    unpacked = unpack_bits(planes, number)
    assert unpacked.dtype == np.uint8
    np.testing.assert_array_equal(unpacked, masks)
    np.testing.assert_array_equal(unpack_bits(pack_bits(masks * 255), number), masks)


def test_packed_masks_can_be_flipped_and_shifted() -> None:
    masks = random_masks(11)
    moved = np.roll(pack_bits(masks)[:, ::-1], 3, axis=2)
    np.testing.assert_array_equal(unpack_bits(np.ascontiguousarray(moved), 11), np.roll(masks[:, ::-1], 3, axis=2))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (None, [0, 0, 0, 0]),
        ((5, 6, 6, 7), [5, 6, 6, 7]),  # one pixel
        ((0, 0, 30, 20), [0, 0, 30, 20]),
        ((3, 0, 4, 20), [3, 0, 4, 20]),  # one pixel wide
    ],
)
def test_masks_to_boxes_is_half_open(box: tuple[int, int, int, int] | None, expected: list[int]) -> None:
    masks = np.zeros((1, *HW), np.uint8)
    if box:
        masks[0, box[1] : box[3], box[0] : box[2]] = 1
    boxes = masks_to_boxes(masks)
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, [expected])


def test_masks_to_boxes_of_no_and_many_masks() -> None:
    assert masks_to_boxes(np.zeros((0, *HW), np.uint8)).shape == (0, 4)
    masks = random_masks(20)
    expected = [coco_mask.toBbox(mask_to_rle(mask)) for mask in masks]
    boxes = masks_to_boxes(masks)
    boxes[:, 2:] -= boxes[:, :2]
    np.testing.assert_array_equal(boxes, expected)


def test_control_torchvision_boxes_are_one_pixel_short() -> None:
    """The reason for a separate function: this test fails if torchvision changes its behaviour."""
    torch = pytest.importorskip("torch")
    from torchvision.ops import masks_to_boxes as torchvision_boxes

    masks = np.zeros((2, *HW), np.uint8)
    masks[0, 3:9, 4:5] = 1
    assert torchvision_boxes(torch.from_numpy(masks[:1]))[0].tolist() == [4, 3, 4, 8]
    np.testing.assert_array_equal(masks_to_boxes(masks), [[4, 3, 5, 9], [0, 0, 0, 0]])


def uncompressed(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    return np.diff([0, *edges[edges < mask.size], mask.size]).tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size_hw", [(1, 1), (5, 7), (200, 300)])
def test_check_rle_equals_pycocotools(size_hw: tuple[int, int], seed: int) -> None:
    coarse = random_masks(1, (-(-size_hw[0] // 9), -(-size_hw[1] // 9)), seed)[0]
    mask = np.kron(coarse, np.ones((9, 9), np.uint8))[: size_hw[0], : size_hw[1]]
    rle = coco_mask.encode(np.asfortranarray(mask))
    assert check_rle(rle, size_hw, "here") == rle
    assert check_rle({"size": rle["size"], "counts": rle["counts"].decode()}, size_hw, "here") == rle
    listed = check_rle({"size": rle["size"], "counts": uncompressed(mask)}, size_hw, "here")
    np.testing.assert_array_equal(rle_to_mask(listed), mask)


GOOD = mask_to_rle(random_masks(1)[0])["counts"]


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [20, 30], "counts": []}, "add up to 0"),
        ({"size": [20, 30], "counts": [4]}, "add up to 4"),
        ({"size": [20, 30], "counts": [4, 600]}, "add up to 604"),
        ({"size": [20, 30], "counts": [700, -100]}, "negative"),
        ({"size": [20, 30], "counts": [2**40]}, "more than the pixels of any image"),
        ({"size": [20, 30], "counts": [0.5, 599.5]}, "a list of integers"),
        ({"size": [30, 20], "counts": GOOD}, r"size \[30, 20\]"),
        ({"size": [2, 3], "counts": [6]}, r"size \[2, 3\]"),
        ({"size": [20, 30], "counts": ""}, "compressed format"),
        ({"size": [20, 30], "counts": GOOD[:-3]}, "add up to|compressed format|negative"),
        ({"size": [20, 30], "counts": GOOD + b"5"}, "add up to"),
        ({"size": [20, 30], "counts": b"\x00\x01"}, "compressed format"),
        ({"size": [20, 30], "counts": "ä€"}, "add up to|compressed format"),
        ({"size": [20, 30], "counts": b"o" * 40}, "compressed format"),
        ({"size": [20, 30], "counts": b"o" * 40 + b"0"}, "too large"),
    ],
)
def test_check_rle_rejects(rle: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"^a.json, annotation 3: .*({message})"):
        check_rle(rle, HW, "a.json, annotation 3")


def test_check_rle_rejects_random_bytes() -> None:
    rng = np.random.default_rng(0)
    for length in range(1, 400):
        text = rng.integers(48, 112, length).astype(np.uint8).tobytes()
        with pytest.raises(DataError):
            check_rle({"size": HW, "counts": text}, HW, "here")


def test_control_pycocotools_accepts_short_counts() -> None:
    """Without the check, counts that are too short are silently accepted."""
    assert coco_mask.area(coco_mask.frPyObjects({"size": [20, 30], "counts": [4]}, 20, 30)) == 0


RING = [1.0, 1, 8, 1, 8, 6]


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([], "no ring"),
        ([[]], "ring 0 of the polygon has 0 numbers"),
        ([RING[:4]], "4 numbers"),
        ([RING, [*RING, 3.0]], "ring 1 of the polygon has 7 numbers"),
        ([[*RING[:5], float("nan")]], "coordinate nan"),
        ([[*RING[:5], float("inf")]], "coordinate inf"),
        ([[*RING[:5], -1e8]], "coordinate -1e[+]08"),
        ([[*RING[:5], 120.5]], "coordinate 120.5"),
    ],
)
def test_check_polygons_rejects(polygons: list[list[float]], message: str) -> None:
    with pytest.raises(DataError, match=f"^here: .*{message}"):
        check_polygons(polygons, HW, "here")


def test_check_polygons_returns_rings() -> None:
    rings = check_polygons([RING, np.array(RING).reshape(-1, 2)], HW, "here")
    assert [ring.shape for ring in rings] == [(3, 2), (3, 2)]
    assert all(ring.dtype == np.float64 for ring in rings)
    np.testing.assert_array_equal(rings[0].ravel(), RING)


@pytest.mark.parametrize("size_hw", [(2**16, 2**15), (10**6, 10**6)])
def test_masks_with_more_pixels_than_32_bits_are_rejected(size_hw: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="too large"):
        check_polygons([RING], size_hw, "here")
    with pytest.raises(DataError, match="too large"):
        check_rle({"size": size_hw, "counts": [size_hw[0] * size_hw[1]]}, size_hw, "here")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a memory limit")
def test_control_pycocotools_crashes_on_nan() -> None:
    """Without the check, one NaN crashes the process (here with a memory limit of 1 GiB)."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from pycocotools import mask\n"
        "mask.frPyObjects([[float('nan'), 1.0, 5.0, 1.0, 5.0, 5.0]], 10, 10)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode != 0


def random_polygons(seed: int, size_hw: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    height, width = size_hw
    return [
        rng.uniform(-3, [width + 3, height + 3], (int(rng.integers(3, 12)), 2)) for _ in range(int(rng.integers(1, 4)))
    ]


@pytest.mark.parametrize("seed", range(20))
def test_rasterize_equals_ann_to_mask(seed: int) -> None:
    size_hw = (40 + seed, 61)
    polygons = random_polygons(seed, size_hw)
    flat = [ring.ravel().tolist() for ring in polygons]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *size_hw)))
    mask = rasterize(polygons, size_hw, size_hw)
    np.testing.assert_array_equal(mask, expected)
    assert segmentation_area(polygons, size_hw) == expected.sum()
    np.testing.assert_array_equal(rasterize(mask_to_rle(expected), size_hw, size_hw), expected)
    assert segmentation_area(mask_to_rle(expected), size_hw) == expected.sum()


@pytest.mark.parametrize("to_hw", [(10, 15), (40, 60), (33, 47), (1, 1)])
def test_rasterize_scales_polygons_and_rle_equally(to_hw: tuple[int, int]) -> None:
    square = [np.array([[6.0, 4], [24, 4], [24, 16], [6, 16]])]
    for segmentation in (square, mask_to_rle(rasterize(square, HW, HW))):
        mask = rasterize(segmentation, HW, to_hw)
        assert mask.shape == to_hw
        assert set(np.unique(mask)) <= {0, 1}
        if min(to_hw) > 1:
            x1, y1, x2, y2 = masks_to_boxes(mask[None])[0]
            factor = np.array([to_hw[1] / 30, to_hw[0] / 20] * 2)
            np.testing.assert_allclose([x1, y1, x2, y2], np.array([6, 4, 24, 16]) * factor, atol=1)


def test_rle_is_resized_by_pixel_centres() -> None:
    """Reducing must not shift: cv2.INTER_NEAREST uses the first pixel of each pair, a shift of half a pixel."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 3:5] = 1  # symmetric about the middle
    half = rasterize(mask_to_rle(mask), (8, 8), (6, 6))
    np.testing.assert_array_equal(half, half[:, ::-1])


def reference_rasterize(segmentation: Any, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> np.ndarray:
    """Reference: the mask of the whole image, with pycocotools and OpenCV only."""
    if isinstance(segmentation, dict):
        return cv2.resize(coco_mask.decode(segmentation), to_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    scale = np.array([to_hw[1] / from_hw[1], to_hw[0] / from_hw[0]])
    flat = [(ring * scale if from_hw != to_hw else ring).ravel().tolist() for ring in segmentation]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *to_hw)))


@pytest.mark.parametrize("seed", range(60))
def test_masks_rasterized_in_their_boxes_equal_full_size_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    from_hw, to_hw = ((int(rng.integers(1, 60)), int(rng.integers(1, 60))) for _ in range(2))
    to_hw = from_hw if seed % 3 == 0 else to_hw
    pixels = from_hw[0] * from_hw[1]
    cuts = np.sort(rng.integers(0, pixels + 1, int(rng.integers(0, 6))))  # includes runs of length 0
    counts = np.diff([0, *cuts, pixels]).tolist()
    segmentations: list[Any] = [
        random_polygons(seed, from_hw),
        [ring * 0.3 for ring in random_polygons(seed + 100, from_hw)],
        *(mask_to_rle(rng.random(from_hw) < share) for share in (0, 0.01, 0.3, 0.9, 1)),
        coco_mask.frPyObjects({"size": list(from_hw), "counts": counts}, *from_hw),
    ]
    masks, boxes, areas = rasterize_all(segmentations, from_hw, to_hw)
    assert masks.flags.c_contiguous
    for i, segmentation in enumerate(segmentations):
        expected = reference_rasterize(segmentation, from_hw, to_hw)
        np.testing.assert_array_equal(masks[i], expected)
        np.testing.assert_array_equal(rasterize(segmentation, from_hw, to_hw), expected)
        assert areas[i] == expected.sum()
    np.testing.assert_array_equal(boxes, masks_to_boxes(masks))
    for kind in (bool, np.float32, np.int64):
        np.testing.assert_array_equal(masks_to_boxes(masks.astype(kind)), boxes)
    for segmentation in segmentations[2:]:
        expected = coco_mask.decode(segmentation)
        np.testing.assert_array_equal(rle_to_mask(segmentation), expected)
        crop, top, left = rle_crop(segmentation)
        np.testing.assert_array_equal(crop, expected[top : top + crop.shape[0], left : left + crop.shape[1]])
        assert crop.sum() == expected.sum()
        assert not crop.size or (crop[[0, -1]].any(axis=1).all() and crop[:, [0, -1]].any(axis=0).all())


def test_no_outlines() -> None:
    masks, boxes, areas = rasterize_all([], HW, (10, 15))
    assert (masks.shape, boxes.shape, areas.shape) == ((0, 10, 15), (0, 4), (0,))


@pytest.mark.parametrize("sides", [(1, 7), (7, 1), (1280, 640), (1333, 800), (480, 1066), (3000, 4096)])
def test_large_rles_are_resized_in_their_boxes(sides: tuple[int, int]) -> None:
    before, after = sides
    mask = (np.random.default_rng(before).random((3, before)) < 0.5).astype(np.uint8)
    for variant, from_hw, to_hw in ((mask, (3, before), (2, after)), (mask.T, (before, 3), (after, 2))):
        expected = reference_rasterize(mask_to_rle(variant), from_hw, to_hw)
        np.testing.assert_array_equal(rasterize(mask_to_rle(variant), from_hw, to_hw), expected)


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        (mask_to_rle(np.zeros(HW)), (0, 0, 0, 0)),
        (mask_to_rle(np.ones(HW)), (0, 0, 30, 20)),
        ([np.array([[1.5, 2], [7, 2], [7, 9.25]])], (1.5, 2, 5.5, 7.25)),
        ([np.array([[1.0, 2], [7, 2], [7, 9]]), np.array([[20.0, 0], [21, 1], [20, 1]])], (1, 0, 20, 9)),
    ],
)
def test_segmentation_box(segmentation: Any, box: tuple[float, ...]) -> None:
    assert segmentation_box(segmentation) == box
