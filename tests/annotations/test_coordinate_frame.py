"""EXIF and annotations: a box covers the same pixels, whether it was annotated on the stored or the upright image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from detseg.annotations.formats.coco.read import read_coco
from detseg.annotations.formats.coco.write import write_coco
from detseg.annotations.table import AnnotationTable
from detseg.images import decode_image
from detseg.masks import rasterize
from detseg.orientation import orient_boxes, orient_image, orient_points, upright_hw

HW = (20, 30)
SCHEMA = {"keypoints": ["left_a", "right_a"], "skeleton": [[1, 2]]}


def write(folder: Path, entries: list[tuple[str, tuple[int, int], list[dict[str, Any]]]]) -> Path:
    """Write a COCO file of (file name, annotated height and width, annotations)."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, (height, width), instances in entries:
        images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
        for instance in instances:
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), "category_id": 1, **instance})
    path = folder / "instances.json"
    categories = [{"id": 1, "name": "cell", **SCHEMA}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


BOX = np.array([4.0, 2, 11, 7])


def rotated_data_set(folder: Path, orientation: int, frame: str, stored_hw: tuple[int, int] = HW) -> AnnotationTable:
    """An image that is white inside BOX (stored pixels), with box, polygon, RLE and keypoints in ``frame``."""
    x, y, w, h = BOX.astype(int)
    pixels = np.zeros((*stored_hw, 3), np.uint8)
    pixels[y : y + h, x : x + w] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(folder / "a.png", exif=exif)
    size_hw = stored_hw if frame == "stored" else upright_hw(stored_hw, orientation)
    to_frame = 1 if frame == "stored" else orientation
    box = orient_boxes(BOX[None], stored_hw, to_frame)[0]
    ring = orient_points(np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], float), stored_hw, to_frame)
    mask = orient_image(pixels[..., 0] // 255, to_frame)
    rle = coco_mask.encode(np.asfortranarray(mask))
    keypoints = [*orient_points(np.array([x + 1.0, y + 1]), stored_hw, to_frame), 2, 0, 0, 0]
    common = {"bbox": box.tolist(), "area": float(w * h), "keypoints": keypoints}
    segmentations = [[ring.ravel().tolist()], {"size": list(size_hw), "counts": rle["counts"].decode()}]
    annotations = [{"segmentation": segmentation, **common} for segmentation in segmentations]
    return read_coco(write(folder, [("a.png", size_hw, annotations)]))


# Flips, 180 degree rotations and squares have one size for both frames: then coordinates are of the stored pixels.
CASES = [(o, "stored", HW) for o in range(1, 9)] + [(o, "upright", HW) for o in (1, 5, 6, 7, 8)]
CASES += [(o, "stored", (24, 24)) for o in range(1, 9)]


@pytest.mark.parametrize(("orientation", "frame", "stored_hw"), CASES)
def test_the_same_pixels_under_the_same_box(
    tmp_path: Path, orientation: int, frame: str, stored_hw: tuple[int, int]
) -> None:
    table = rotated_data_set(tmp_path, orientation, frame, stored_hw)
    record = table[0]
    upright = decode_image(record.path)
    assert record.size_hw == upright.shape[:2]
    assert (record.stored_hw, record.orientation) == (stored_hw, orientation)
    white = upright[..., 0] // 255
    for row in range(2):
        x, y, w, h = record.boxes_xywh[row].astype(int)
        assert white[y : y + h, x : x + w].all()
        assert white.sum() == w * h
        segmentation = record.segmentations[row]
        assert segmentation is not None
        np.testing.assert_array_equal(rasterize(segmentation, record.size_hw, record.size_hw), white)
        assert record.keypoints is not None
        x, y = (record.keypoints[row, 0, :2] - 0.5).astype(int)
        assert white[y, x]
        assert record.keypoints[row, 1].tolist() == [0, 0, 0]
    assert table.stored_frame.tolist() == [frame == "stored" and orientation != 1]


@pytest.mark.parametrize(("orientation", "frame", "stored_hw"), CASES)
def test_written_back_in_the_source_frame(
    tmp_path: Path, orientation: int, frame: str, stored_hw: tuple[int, int]
) -> None:
    table = rotated_data_set(tmp_path, orientation, frame, stored_hw)
    write_coco(table, tmp_path / "written.json")
    before, after = (json.loads((tmp_path / name).read_text()) for name in ("instances.json", "written.json"))
    assert after["images"] == before["images"]
    for old, new in zip(before["annotations"], after["annotations"], strict=True):
        assert new["bbox"] == old["bbox"]
        assert new["segmentation"] == old["segmentation"]
        assert new["keypoints"] == old["keypoints"]
    again = read_coco(tmp_path / "written.json")
    np.testing.assert_array_equal(again.boxes_xywh, table.boxes_xywh)
    np.testing.assert_array_equal(again.stored_frame, table.stored_frame)


def test_control_wrong_frame_is_detected(tmp_path: Path) -> None:
    """Control: a box read in the wrong frame does not cover the white pixels."""
    table = rotated_data_set(tmp_path, 6, "stored")
    x, y, w, h = BOX.astype(int)
    assert not decode_image(table[0].path)[y : y + h, x : x + w].all()


def test_real_exif_files(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "exif_orientation"
    names = ["Landscape_0.jpg", "Landscape_1.jpg", "Landscape_2.jpg", "Landscape_3.jpg", "Landscape_6.jpg"]
    path = write(tmp_path, [(name, (1200, 1800), [{"bbox": [100, 200, 300, 400]}]) for name in names])
    table = read_coco(path, folder)
    assert table.orientation.tolist() == [1, 1, 2, 3, 6]
    assert table.stored_frame.tolist() == [
        False,
        False,
        True,
        True,
        False,
    ]  # the image with orientation 6 was annotated upright
    assert all(record.size_hw == (1200, 1800) for record in table)
    corners = table.boxes_xywh[:, :2].tolist()
    assert corners == [[100, 200], [100, 200], [1400, 200], [1400, 600], [100, 200]]
