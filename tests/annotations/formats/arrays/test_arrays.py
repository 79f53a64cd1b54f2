"""NumPy arrays: labels of images, landmarks, splits, and training that equals training on the same images as PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.annotations import find_format, read
from detseg.errors import DataError
from tests.real_exports import sets


def test_labels_of_images(tmp_path: Path) -> None:
    sets.arrays(tmp_path, {"train/a": {"label": 1}, "train/b": {}, "val/c": {"label": [0]}, "val/d": {"label": -1}})
    sets.put(tmp_path / "classes.txt", "ant\nbee\n")
    table = read(tmp_path)
    names = {record.path.name: record.class_names(table.class_map) for record in table}
    assert names == {"a.npy": ["bee"], "c.npy": ["ant"]}
    assert table.split.tolist() == ["train", "val"]
    assert "2 x image without a label left out" in "\n".join(table.notes.lines())


def test_several_labels_are_fields(tmp_path: Path) -> None:
    sets.arrays(tmp_path, {"a": {"label": [1, 7]}, "b": {"label": [2, 7]}})
    table = read(tmp_path)
    assert [record.class_names(table.class_map) for record in table] == [
        ["label 0=1", "label 1=7"], ["label 0=2", "label 1=7"],
    ]  # fmt: skip


def test_landmarks(tmp_path: Path) -> None:
    one = [[20, 20], [np.nan, 3], [50, 60]]
    two = [[[1, 2, 2], [9, 9, 1], [0, 0, 0]], [[-1, -1, 2], [30, 30, 2], [40, 40, 2]]]
    sets.arrays(tmp_path, {"a": {"landmarks": one}, "b": {"landmarks": two, "boxes": [[0, 0, 9, 9], [9, 9, 60, 60]]}})
    table = read(tmp_path)
    assert table.keypoints is not None
    assert table.keypoints.tolist() == [
        [[20, 20, 2], [0, 0, 0], [50, 60, 2]],
        [[1, 2, 2], [9, 9, 1], [0, 0, 0]],
        [[0, 0, 0], [30, 30, 2], [40, 40, 2]],
    ]
    assert table.boxes_xywh.tolist() == [[20, 20, 30, 40], [0, 0, 9, 9], [9, 9, 51, 51]]
    np.save(tmp_path / "a.landmarks.npy", np.ones((1, 2, 2)))
    with pytest.raises(DataError, match=r"landmarks: 2 in a.landmarks.npy, 3 in b.landmarks.npy"):
        read(tmp_path)


def test_other_image_files_and_detection(tmp_path: Path) -> None:
    sets.image(tmp_path / "x.jpg")
    np.save(tmp_path / "x.boxes.npy", np.array([[20, 20, 50, 50]]))
    assert find_format(tmp_path).explanation == "arrays: 1 images, 1 with boxes"
    assert read(tmp_path).boxes_xywh.tolist() == [[20, 20, 30, 30]]
    sets.image(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x.jpg and x.png have the same arrays"):
        read(tmp_path)
    (tmp_path / "x.png").unlink()
    with pytest.raises(DataError, match="omit --images"):
        read(tmp_path, images=tmp_path)


def as_arrays(folders: Path, output: Path) -> Path:
    """Class folders of PNG as arrays with labels."""
    for path in sorted(folders.glob("*/*.png")):
        target = output / path.relative_to(folders).with_suffix(".npy")
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
        np.save(target, pixels)
        np.save(target.with_suffix(".label.npy"), np.array(path.parent.name))
    return output


def test_control_arrays_are_the_same_pixels(tmp_path: Path) -> None:
    from detseg.images import decode_image

    sets.image(tmp_path / "in/a/x.png")
    as_arrays(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(decode_image(tmp_path / "in/a/x.png"), decode_image(tmp_path / "out/a/x.npy"))
