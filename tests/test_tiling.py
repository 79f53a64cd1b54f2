"""The grid of tiles, and which objects a tile shows."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.errors import DataError
from detseg.preprocess import Preprocessing
from detseg.tiling import Tiling, changed_tiling, shown, starts


@pytest.mark.parametrize("overlap", [0.05, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 100, 128, 1000])
def test_tiles_cover_an_axis_and_overlap(length: int, overlap: float) -> None:
    first = np.array(starts(length, 64, overlap))
    assert first[0] == 0
    assert first[-1] == max(length - 64, 0)
    assert (np.diff(first) > 0).all()
    assert (64 - np.diff(first) >= overlap * 64).all()


def test_the_last_tile_is_shifted_inside() -> None:
    assert starts(200, 64, 0.2) == [0, 51, 102, 136]


def test_views_are_windows_of_the_original() -> None:
    preprocessing = Preprocessing(64, 107, tiling=Tiling(128, 0.25, whole_image=True))
    views = preprocessing.views((300, 200))
    assert {view.resized_hw for view in views[:-1]} == {(150, 100)}
    assert {view.network_hw for view in views[:-1]} == {(64, 64)}
    assert [view.window for view in views[:3]] == [(0, 0, 128, 128), (72, 0, 200, 128), (0, 96, 128, 224)]
    assert views[-1].window == (0, 0, 200, 300)
    assert views[-1].network_hw == (96, 64)  # as without tiles
    assert len(Preprocessing(64, 107, tiling=Tiling(128, 0.25, whole_image=False)).views((300, 200))) == len(views) - 1


def test_an_image_that_is_not_larger_than_a_tile_has_one_view_at_the_scale_of_the_others() -> None:
    preprocessing = Preprocessing(64, 107, tiling=Tiling(128))
    (view,) = preprocessing.views((100, 128))
    assert view.network_hw == view.resized_hw == (50, 64)
    (square,) = Preprocessing(64, 0, stretch=True, tiling=Tiling(128)).views((100, 128))
    assert square.network_hw == (64, 64)


def test_without_tiles_the_only_view_is_the_image() -> None:
    preprocessing = Preprocessing(64, 107)
    assert preprocessing.views((300, 200), 6) == [preprocessing.geometry((300, 200), 6)]


def test_tiles_are_cut_from_the_image_that_is_resized_once() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 100, 3)).astype(np.uint8)
    preprocessing = Preprocessing(64, 107, tiling=Tiling(64))
    for view in preprocessing.views((150, 100))[:-1]:
        left, top, right, bottom = (int(side) for side in view.window)
        np.testing.assert_array_equal(preprocessing.apply(pixels, view), pixels[top:bottom, left:right])


def test_an_image_is_not_enlarged_without_limit() -> None:
    with pytest.raises(DataError, match=r"12000 x 12000, .*larger tiles"):
        Preprocessing(512, 853, tiling=Tiling(128)).views((3000, 3000))


def test_the_tiling_is_saved_with_the_preprocessing() -> None:
    preprocessing = Preprocessing(64, 107, tiling=Tiling(128, 0.3, whole_image=False))
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    assert "tiles of 128 px that overlap by 30%" in preprocessing.lines()[0]


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"size": 0}, "from 1 to 16384"),
        ({"size": 64, "overlap": 0.0}, "cannot be merged"),
        ({"size": 64, "overlap": float("nan")}, "overlap nan"),
        ({"size": 64, "overlap": 0.9}, "from 0.05 to 0.8"),
    ],
)
def test_tilings_that_cannot_work(values: dict[str, float], part: str) -> None:
    with pytest.raises(DataError, match=part):
        Tiling(**values)  # type: ignore[arg-type]


def test_a_classifier_has_no_tiles() -> None:
    with pytest.raises(DataError, match="classifier"):
        Preprocessing(64, 0, crop=64, tiling=Tiling(128))


TRAINED = Tiling(512, 0.3, whole_image=False)


@pytest.mark.parametrize(
    ("trained", "changes", "used"),
    [
        (None, (None, None, None), None),
        (None, (0, None, None), None),
        (None, (256, None, None), Tiling(256)),
        (None, (256, 0.5, False), Tiling(256, 0.5, whole_image=False)),
        (TRAINED, (None, None, None), TRAINED),
        (TRAINED, (0, None, None), None),
        (TRAINED, (256, None, None), Tiling(256, 0.3, whole_image=False)),
        (TRAINED, (None, 0.1, True), Tiling(512, 0.1, whole_image=True)),
    ],
)
def test_the_tiles_of_a_trained_model_can_be_changed(
    trained: Tiling | None, changes: tuple[int | None, float | None, bool | None], used: Tiling | None
) -> None:
    assert changed_tiling(trained, *changes) == used


@pytest.mark.parametrize(("overlap", "whole_image", "flag"), [(0.2, None, "--overlap"), (None, True, "--whole-image")])
def test_changes_of_tiles_need_tiles(overlap: float | None, whole_image: bool | None, flag: str) -> None:
    for trained, size in ((None, None), (TRAINED, 0)):
        with pytest.raises(DataError, match=f"{flag} without tiles"):
            changed_tiling(trained, size, overlap, whole_image)


LEFT, RIGHT, ALL = (0.0, 0.0, 60.0, 50.0), (40.0, 0.0, 100.0, 50.0), (0.0, 0.0, 100.0, 50.0)


@pytest.mark.parametrize(
    ("box", "windows", "expected"),
    [
        ((10, 10, 20, 20), [LEFT, RIGHT], [True, False]),
        ((45, 10, 55, 20), [LEFT, RIGHT], [True, True]),
        ((30, 10, 50, 20), [LEFT, RIGHT], [True, True]),  # RIGHT shows half of it
        ((22, 10, 46, 20), [LEFT, RIGHT], [True, False]),  # RIGHT shows a quarter of it
        ((5, 10, 95, 20), [LEFT, RIGHT], [True, True]),  # no tile shows all of it: the best ones teach it
        ((5, 10, 95, 20), [LEFT, RIGHT, ALL], [True, True, True]),
        ((0, 10, 42, 20), [LEFT, RIGHT, ALL], [True, False, True]),
    ],
)
def test_objects_that_are_shown(
    box: tuple[float, ...], windows: list[tuple[float, float, float, float]], expected: list[bool]
) -> None:
    assert shown(np.array([box], np.float64), windows, 0.4)[:, 0].tolist() == expected


def test_without_boxes_nothing_is_shown() -> None:
    assert shown(np.zeros((0, 4)), [LEFT, RIGHT], 0.4).shape == (2, 0)
