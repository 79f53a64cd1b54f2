"""``Predictor(run)(image)``: the result is the same for a path, bytes and pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detseg import Predictor
from detseg.errors import DataError
from detseg.images import decode_image


@pytest.fixture(scope="module")
def predictor(parts: Path, train: Any, no_images: None, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(train(parts, tmp_path_factory.mktemp("predictor") / "run", "--lr", "1e-3"), "cpu")


@pytest.fixture(scope="module")
def images(parts: Path) -> list[Path]:
    return sorted((parts / "train").glob("*.jpg"))


def blocks(seed: int = 0) -> Image.Image:
    """An image of constant gray 16 x 16 blocks, which JPEG at quality 100 stores exactly, rotated or not."""
    values = np.random.default_rng(seed).integers(0, 256, (12, 20)).astype(np.uint8)
    return Image.fromarray(values.repeat(16, 0).repeat(16, 1)).convert("RGB")


def jpeg(image: Image.Image, orientation: int | None = None) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(file, "JPEG", quality=100, subsampling=0, exif=exif)
    return file.getvalue()


def assert_equal(first: Any, second: Any) -> None:
    assert first.size_hw == second.size_hw
    for name in ("boxes", "labels", "scores"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.rles == second.rles


def assert_close(first: Any, second: Any) -> None:
    assert first.size_hw == second.size_hw
    assert len(first) == len(second) > 0
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-4)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_allclose(first.boxes, second.boxes, atol=1e-4 * max(first.size_hw))


def test_path_bytes_and_pixels(predictor: Predictor, images: list[Path], tmp_path: Path) -> None:
    pixels = decode_image(images[0])
    path = tmp_path / "same.png"
    Image.fromarray(pixels).save(path)
    expected: Any = predictor(path)
    assert len(expected) > 0
    assert expected.size_hw == pixels.shape[:2]
    for image in (str(path), path.read_bytes(), pixels):
        assert_equal(predictor(image), expected)
    # a JPEG much larger than the network input is decoded at a reduced size, the same for a path and for bytes
    assert_equal(predictor(images[0]), predictor(images[0].read_bytes()))
    reduced, full = (predictor.prepare(image)[0].astype(float) for image in (images[0], pixels))
    assert reduced.shape == full.shape
    assert np.abs(reduced - full).mean() < 3
    other = predictor.prepare(images[1])[0].astype(float)  # control
    assert other.shape != full.shape or np.abs(other - full).mean() > 3


@pytest.mark.parametrize(("orientation", "degrees"), [(6, 90), (8, -90), (3, 180)])
def test_exif_rotation_does_not_change_the_result(predictor: Predictor, orientation: int, degrees: int) -> None:
    upright = blocks()
    stored = upright.rotate(degrees, expand=True)  # stored by the camera; the EXIF tag defines how to rotate it back
    reference, tagged, untagged = jpeg(upright), jpeg(stored, orientation), jpeg(stored)
    np.testing.assert_array_equal(predictor.prepare(tagged)[0], predictor.prepare(reference)[0])
    assert_equal(predictor(tagged), predictor(reference))
    assert_equal(predictor(reference), predictor(np.asarray(upright)))
    control = predictor.prepare(untagged)[0]
    expected = predictor.prepare(reference)[0]
    assert control.shape != expected.shape or not np.array_equal(control, expected)


def test_a_photo_with_exif_rotation(predictor: Predictor, shared_data: Path) -> None:
    first, sixth = (predictor.prepare(shared_data / f"exif_orientation/Landscape_{n}.jpg") for n in (1, 6))
    assert first[0].shape == sixth[0].shape
    assert first[1].original_hw == sixth[1].original_hw
    assert np.abs(first[0].astype(float) - sixth[0]).mean() < 4  # the two files were compressed separately


def test_results_do_not_depend_on_the_batch(predictor: Predictor, images: list[Path]) -> None:
    wide, tall = decode_image(images[0]), np.ascontiguousarray(decode_image(images[1]).transpose(1, 0, 2))
    together = predictor.many([wide, tall])
    for batched, alone in zip(together, (predictor(wide), predictor(tall)), strict=True):
        assert_close(batched, alone)
    with pytest.raises(AssertionError):  # control: the two images differ
        assert_close(together[0], together[1])
    assert predictor.many([]) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        b"",
        b"no image",
        io.BytesIO(),
        [np.zeros((4, 4, 3), np.uint8)],
    ],
)
def test_invalid_images_are_rejected(image: Any, predictor: Predictor) -> None:
    with pytest.raises(DataError):
        predictor(image)


def test_all_kinds_of_images_have_the_same_prediction(predictor: Predictor, images: list[Path], tmp_path: Path) -> None:
    pixels = decode_image(images[0])
    path = tmp_path / "same.png"
    Image.fromarray(pixels).save(path)
    expected: Any = predictor(path)
    assert len(expected) > 0
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds: list[Any] = [
        str(path), path.read_bytes(), Image.open(path), Image.fromarray(pixels).convert("RGBA"), pixels, tensor,
        (pixels / 255).astype(np.float32), tensor / 255, (tensor / 255).requires_grad_(),
    ]  # fmt: skip
    for image, together in zip(kinds, predictor.many(kinds), strict=True):
        assert_equal(predictor(image), expected)
        assert_close(together, expected)
    with pytest.raises(AssertionError):  # control: another image
        assert_equal(predictor(decode_image(images[1])), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16", "CMYK"])
def test_a_pil_image_is_converted_as_its_file(mode: str, predictor: Predictor, tmp_path: Path) -> None:
    image = Image.open(io.BytesIO(jpeg(blocks())))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    from_file, from_pil = predictor.prepare(path), predictor.prepare(image)
    np.testing.assert_array_equal(from_file[0], from_pil[0])
    assert image.mode == mode
    assert from_file[1] == from_pil[1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_is_rotated_as_its_file(orientation: int, predictor: Predictor) -> None:
    stored = jpeg(blocks(), orientation)
    pixels, geometry = predictor.prepare(Image.open(io.BytesIO(stored)))
    np.testing.assert_array_equal(pixels, predictor.prepare(decode_image(stored))[0])
    assert geometry == predictor.prepare(stored)[1]


def test_one_pixel_is_a_valid_image(predictor: Predictor) -> None:
    assert predictor(np.zeros((1, 1, 3), np.uint8)).size_hw == (1, 1)  # type: ignore[union-attr]


def test_errors_of_run_and_device(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"best\.safetensors"):
        Predictor(tmp_path)
    with pytest.raises(DataError, match="device"):
        Predictor(tmp_path, "nothing")
    with pytest.raises(DataError, match=r"device '0' does not exist; did you mean cuda:0\?"):
        Predictor(tmp_path, "0")
