"""Near-duplicates: altered copies are found among the images of the demo set and of real sets, and nothing else is.

Controls: without a tolerance for other hashes the cropped copies are missed, and without the comparison of the pixels
different images are taken for copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import detseg.doctor.near_duplicates as search
from detseg.annotations import read
from detseg.doctor import inspect_images
from detseg.doctor.image_hash import hashes, image_hash, mirrored_hash, thumbnail
from detseg.doctor.near_duplicates import near_duplicates, near_duplicates_of, previous_in_sequence
from detseg.doctor.same_view import view_of
from detseg.images import decode_image
from detseg.synthetic.demo.render import demo_folder

Image = npt.NDArray[np.uint8]

LEAST_RECALL = {"jpeg": 0.9, "scaled": 0.9, "brighter": 0.9, "mirrored": 0.9, "cropped": 0.8, "rotated": 0.8}


def altered(pixels: Image) -> dict[str, Image]:
    height, width = pixels.shape[:2]
    encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 2, 1)
    size = round(0.6 * width), round(0.6 * height)
    y, x = round(0.03 * height), round(0.03 * width)
    copies = {
        "jpeg": cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB),
        "scaled": cv2.resize(pixels, size, interpolation=cv2.INTER_AREA),
        "brighter": cv2.add(pixels, np.full_like(pixels, 15)),
        "mirrored": pixels[:, ::-1],
        "cropped": pixels[y:, x:],
        "rotated": cv2.warpAffine(pixels, turn, (width, height)),
    }
    return {name: np.ascontiguousarray(copy, np.uint8) for name, copy in copies.items()}


def recall(images: Sequence[Image], kind: str) -> tuple[float, int]:
    """Share of the copies that are found, and the number of pairs of different images."""
    everything = [*images, *(altered(image)[kind] for image in images)]
    found = near_duplicates_of(
        np.array([thumbnail(image) for image in everything]), lambda row: view_of(everything[row])
    )
    count = len(images)
    hits = np.mean(found.group[:count] == found.group[count:])
    return float(hits), sum(pair.first % count != pair.second % count for pair in found.pairs)


@pytest.fixture(scope="module")
def demo_images() -> list[Image]:
    return [decode_image(path) for path in sorted((demo_folder() / "train").glob("*"))[:12]]


@pytest.mark.parametrize("kind", LEAST_RECALL)
def test_altered_copies_are_found(kind: str, demo_images: list[Image]) -> None:
    share, wrong = recall(demo_images, kind)
    assert share >= LEAST_RECALL[kind]
    assert wrong == 0


def test_control_with_a_threshold_of_0_cropped_copies_are_missed(
    demo_images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MOST_BITS", 0)
    assert recall(demo_images, "cropped")[0] < LEAST_RECALL["cropped"]


def test_control_without_comparing_pixels_different_images_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    table = read(demo_folder())
    thumbnails = search.table_thumbnails(table)
    assert near_duplicates(table, thumbnails).pairs == []
    monkeypatch.setattr(search, "show_the_same", lambda first, second: True)
    monkeypatch.setattr(search, "LEAST_SIMILARITY", -1)
    assert near_duplicates(table, thumbnails).pairs


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("coco_open", []),
        ("oxford_pet_26", []),
        ("padilla_metrics/toyexample", []),
        ("flowers", []),
        ("shapes/shapes", []),
        # each shows one field of the microscope twice: refocused, or moved by a few micrometres
        ("bccd/BCCD", [("00037", "00038"), ("00386", "00391"), ("00382", "00395")]),
    ],
)
def test_real_sets_have_no_others_than_true_pairs(
    folder: str, expected: list[tuple[str, str]], shared_data: Path
) -> None:
    table = read(shared_data / folder)
    names = [Path(name).stem.removeprefix("BloodImage_") for name in table.media.tolist()]
    pairs = [(names[pair.first], names[pair.second]) for pair in near_duplicates(table).pairs]
    assert pairs == expected


@pytest.mark.parametrize("count", [0, 1, 2])
def test_blank_images_are_no_copies_of_each_other(count: int) -> None:
    blank = np.full((count, 32, 32), 7, np.uint8)
    found = near_duplicates_of(blank, lambda row: pytest.fail("a blank image is not compared"))
    assert found.pairs == []
    assert found.group.tolist() == list(range(count))


def test_images_that_cannot_be_decoded_are_no_copies() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1, 32, 32), np.uint8).repeat(2, axis=0)
    assert near_duplicates_of(noise, lambda row: None).pairs == []


def test_a_chain_of_moving_views_is_one_group() -> None:
    """A~B~C~...: the camera moves on by a twentieth of the view, so that the first and the last view share nothing."""
    noise = np.random.default_rng(1).integers(0, 255, (30, 60, 3), np.uint8)
    wall = cv2.resize(noise, None, fx=10, fy=10, interpolation=cv2.INTER_CUBIC)
    views = [np.ascontiguousarray(wall[:, 15 * step : 15 * step + 300]) for step in range(15)]
    thumbnails = np.array([thumbnail(view) for view in views])
    in_order = {row: row - 1 for row in range(1, len(views))}
    load: Callable[[int], search.View] = lambda row: view_of(views[row])  # noqa: E731
    found = near_duplicates_of(thumbnails, load, in_order)
    assert [group.tolist() for group in found.groups()] == [list(range(15))]
    ends = near_duplicates_of(thumbnails[[0, -1]], lambda row: view_of(views[-row]))
    assert ends.pairs == [], "control: the ends alone are different views"


def test_the_hash_is_of_the_grey_levels_and_knows_the_mirror_image() -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (50, 70, 3), np.uint8)
    mirror = np.ascontiguousarray(pixels[:, ::-1])
    assert 0 <= image_hash(pixels) < 2**63
    assert bin(mirrored_hash(pixels) ^ image_hash(mirror)).count("1") <= 1, "equal but for rounding"
    assert image_hash(pixels) != image_hash(mirror)
    assert hashes(np.zeros((0, 32, 32), np.uint8)).shape == (0,)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], {}),
        (["a.jpg"], {}),
        (["a_9.jpg", "a_10.jpg", "a_11.jpg"], {1: 0, 2: 1}),
        (["a_2.jpg", "b_1.jpg", "a_1.jpg", "a_3.png"], {0: 2}),
        (["x/1.jpg", "y/2.jpg"], {}),
    ],
)
def test_neighbours_in_a_numbered_sequence(names: list[str], expected: dict[int, int]) -> None:
    assert previous_in_sequence(names) == expected


def test_inspect_names_near_duplicates_in_two_splits_of_the_source(shared_data: Path) -> None:
    table = read(shared_data / "bccd/BCCD")
    rows = [row for row, name in enumerate(table.media.tolist()) if name[-7:-4] in ("036", "037", "038", "382", "395")]
    found = [finding for finding in inspect_images(table.subset(rows)) if finding.kind.startswith("near-duplicates")]
    warning, note = found
    assert warning.message.startswith("val: JPEGImages/BloodImage_00037.jpg: it shows the same as train: ")
    assert warning.message.endswith("--group auto, which splits the data without them")
    assert (note.severity, note.file) == ("note", "JPEGImages/BloodImage_00382.jpg")
