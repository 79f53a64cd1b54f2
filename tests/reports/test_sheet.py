"""Contact sheets, text in any script, and image files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.errors import DataError
from detseg.reports.sheet import sheet, write_image
from detseg.reports.text import paste_text, text_mask


def tile(height: int, width: int, value: int = 0) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize(
    ("shapes", "columns", "rows"),
    [([], 4, 0), ([(30, 40)], 4, 1), ([(30, 40)] * 5, 2, 3), ([(400, 10), (10, 900), (1, 1)], 3, 1)],
)
def test_sheet_contains_all_images(shapes: list[tuple[int, int]], columns: int, rows: int) -> None:
    images = [tile(*shape) for shape in shapes]
    out = sheet(images, ["title"] * len(shapes), columns, cell=100)
    assert out.dtype == np.uint8
    assert out.shape[2] == 3
    black = (out == 0).all(axis=2).astype(np.uint8)
    assert cv2.connectedComponents(black)[0] - 1 == len(shapes)
    assert out.shape[0] <= rows * 130 + 60


def test_images_keep_their_aspect_ratio_and_titles_are_above() -> None:
    out = sheet([tile(50, 100, 7)], ["a"], cell=200)
    positions = np.argwhere((out == 7).all(axis=2))
    top, left = positions.min(axis=0)
    bottom, right = positions.max(axis=0) + 1
    assert (bottom - top, right - left) == (100, 200)
    assert (out[:top] < 100).any()


@pytest.mark.parametrize("titles", [[], ["a", "b"]])
def test_one_title_per_image_is_required(titles: list[str]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        sheet([tile(5, 5)], titles)


@pytest.mark.parametrize(
    ("text", "blank"), [("", True), ("a", False), ("  \n ", True), ("Länge", False), ("файл", False), ("画像", False)]
)
def test_text_in_any_script(text: str, blank: bool) -> None:
    mask = text_mask(text, 14)
    assert mask.dtype == np.uint8
    assert mask.shape[0] == text_mask("xyz", 14).shape[0]
    assert (mask == 0).all() == blank


def test_long_text_is_truncated() -> None:
    assert text_mask("w" * 500, 12, 80).shape[1] <= 80
    assert text_mask("w", 12, 1).shape[1] <= 1
    assert text_mask("short", 12, 500).shape[1] < 100


def test_text_outside_the_image_is_cropped() -> None:
    image = tile(20, 20)
    mask = np.full((6, 10), 255, np.uint8)
    paste_text(image, mask, -3, -4, (9, 8, 7))
    paste_text(image, mask, 18, 15, (9, 8, 7))
    assert (image[:3, :6] == (9, 8, 7)).all()
    assert (image[18:, 15:] == (9, 8, 7)).all()
    assert (image.sum(axis=2) > 0).sum() == 3 * 6 + 2 * 5


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
def test_image_files(suffix: str, tmp_path: Path) -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    image[..., 0] = 200
    path = tmp_path / "new" / f"bild ä.{suffix}"
    write_image(path, image)
    decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - image).max() <= (0 if suffix == "png" else 3)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["a", "a.gif"])
def test_other_suffixes_are_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="written as"):
        write_image(tmp_path / name, tile(2, 2))
    assert list(tmp_path.iterdir()) == []
