"""The split of a new run keeps near-duplicates, frames of one video and augmented copies together, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.annotations import AnnotationTable
from detseg.annotations.builder import TableBuilder
from detseg.annotations.from_options import Splits, load_splits
from detseg.classes import ClassMap
from detseg.doctor.near_duplicates import NearDuplicates
from detseg.doctor.related_images import with_large_groups_cut, with_related_groups
from detseg.errors import DataError
from detseg.options import TrainConfig
from detseg.training import run_splits as module
from detseg.training.run_splits import run_splits

AUTO = TrainConfig(data="x")


def scene(seed: int) -> np.ndarray:
    """A different image for each seed, with enough corners to be aligned by them."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), np.uint8)
    return cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)


def make_table(root: Path, images: dict[str, np.ndarray], splits: dict[str, str] | None = None) -> AnnotationTable:
    builder = TableBuilder(ClassMap.from_names(["a"]), root, source="test data")
    for name, pixels in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), pixels)
        builder.add_image(name, pixels.shape[:2], split=(splits or {}).get(name, ""))
        builder.add_instance([1, 2, 30, 20], 1)
    return builder.build()


def copies(count: int = 10) -> dict[str, np.ndarray]:
    """Pairs of an image and its brighter copy, under names that say nothing."""
    images = {}
    for number in range(count):
        images[f"{chr(97 + number)}_first.png"] = scene(number)
        images[f"{chr(97 + number)}_second.png"] = cv2.add(scene(number), np.full((96, 96, 3), 15, np.uint8))
    return images


def divided(splits: Splits, key: Callable[[str], str]) -> set[str]:
    """The groups by ``key`` of a file name that are in two splits."""
    groups = [{key(name) for name in table.media.tolist()} for table in splits.values()]
    return {group for group in set().union(*groups) if sum(group in names for names in groups) > 1}


def first_letter(name: str) -> str:
    return name[0]


def test_near_duplicates_are_kept_in_one_split_by_default(tmp_path: Path) -> None:
    table = make_table(tmp_path, copies())
    assert divided(load_splits(AUTO, table), first_letter), "control: the plain split divides some"
    splits, lines = run_splits(AUTO, table)
    assert divided(splits, first_letter) == set()
    (line,) = lines
    assert line.startswith("  10 groups of near-duplicates and related images (20 images, such as a_first.png)")
    assert "(--group none: not)" in line
    again, _ = run_splits(AUTO, table)
    assert {name: part.media.tolist() for name, part in again.items()} == {
        name: part.media.tolist() for name, part in splits.items()
    }


@pytest.mark.parametrize("options", [{"group": "none"}, {"group": "([a-z])_"}, {"split": "stratified"}])
def test_the_user_decides(options: dict[str, str], tmp_path: Path) -> None:
    table = make_table(tmp_path, copies())
    config = TrainConfig(data="x", **options)
    splits, lines = run_splits(config, table)
    assert {name: part.media.tolist() for name, part in splits.items()} == {
        name: part.media.tolist() for name, part in load_splits(config, table).items()
    }
    assert len(lines) == ("split" in options), "a split that was asked for is only warned about"


def test_without_near_duplicates_the_split_is_the_plain_one(tmp_path: Path) -> None:
    table = make_table(tmp_path, {f"{number}x.png": scene(number) for number in range(12)})
    splits, lines = run_splits(AUTO, table)
    assert lines == []
    assert splits["val"].media.tolist() == load_splits(AUTO, table)["val"].media.tolist()


def test_splits_of_the_source_stay_with_a_warning(tmp_path: Path) -> None:
    images = copies(4)
    of_source = {name: "val" if name == "a_second.png" else "train" for name in images}
    table = make_table(tmp_path, images, of_source)
    splits, lines = run_splits(AUTO, table)
    assert splits["val"].media.tolist() == ["a_second.png"]
    (line,) = lines
    assert "near-duplicates in two splits" in line
    assert "train: a_first.png ~ val: a_second.png" in line
    regrouped, _ = run_splits(TrainConfig(data="x", group="auto"), table)
    assert divided(regrouped, first_letter) == set(), "the remedy in the line"


def test_images_that_are_all_alike_are_divided_with_a_warning(tmp_path: Path) -> None:
    table = make_table(tmp_path, {f"{number}.png": scene(0) for number in range(12)})
    splits, lines = run_splits(AUTO, table)
    assert sorted(map(len, splits.values())) == [2, 10]
    assert "scores will be too high" in lines[-1]


def test_more_images_than_are_decoded_without_being_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", 10)
    table = make_table(tmp_path, copies())
    _, lines = run_splits(AUTO, table)
    assert "in up to 10 images only" in lines[0]
    splits, _ = run_splits(TrainConfig(data="x", group="auto"), table)
    assert divided(splits, first_letter) == set()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_folds_keep_near_duplicates_together(number: int, tmp_path: Path) -> None:
    splits, _ = run_splits(TrainConfig(data="x", fold=f"{number}/3"), make_table(tmp_path, copies()))
    assert divided(splits, first_letter) == set()
    assert set(splits) == {"train", "val"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": "0/5"}, "such as 1/5"),
        ({"fold": "6/5"}, "such as 1/5"),
        ({"fold": "1/1"}, "such as 1/5"),
        ({"fold": "1/50"}, "20 images cannot be divided into 50 folds"),
        ({"fold": "1/5", "val": 0.3}, "omit it"),
        ({"fold": "1/5", "test": 0.3}, "omit it"),
        ({"fold": "1/5", "split": "source"}, "omit one of them"),
        ({"fold": "1/5", "split_file": "split.json"}, "only one of them"),
    ],
)
def test_folds_that_cannot_be_made(options: dict[str, object], message: str, tmp_path: Path) -> None:
    table = make_table(tmp_path, copies())
    with pytest.raises(DataError, match=message):
        run_splits(TrainConfig(data="x", group="none", **options), table)  # type: ignore[arg-type]


def related(names: list[str], group: list[int] | None = None) -> list[list[str]]:
    builder = TableBuilder(ClassMap.from_names(["a"]), "/nowhere", source="test data")
    for name in names:
        builder.add_image(name, (40, 60))
    near = NearDuplicates(np.array(range(len(names)) if group is None else group, np.int64))
    table = with_related_groups(builder.build(), near)
    groups: dict[str, list[str]] = {}
    for name, column in zip(names, table.group.tolist(), strict=True):
        groups.setdefault(column or name, []).append(name)
    return list(groups.values())


ROBOFLOW = ["train/a_jpg.rf.0123456789abcdef0123456789abcdef.jpg", "val/a_jpg.rf.fedcba9876543210fedcba9876543210.jpg"]
FRAMES = [f"v/frame_{number}.png" for number in range(12)]


@pytest.mark.parametrize(
    ("names", "group", "expected"),
    [
        ([], None, []),
        (["a.jpg"], None, [["a.jpg"]]),
        (["a.jpg", "b.jpg", "c.jpg"], [0, 1, 0], [["a.jpg", "c.jpg"], ["b.jpg"]]),
        (ROBOFLOW, None, [ROBOFLOW]),
        (FRAMES, [0] * 8 + [8, 9, 10, 11], [FRAMES]),  # most neighbours are alike: a video
        (FRAMES, None, [[name] for name in FRAMES]),  # control: photos that are numbered
    ],
)
def test_names_that_belong_together(names: list[str], group: list[int] | None, expected: list[list[str]]) -> None:
    assert related(names, group) == expected


def test_a_long_video_is_cut_into_runs_of_frames() -> None:
    builder = TableBuilder(ClassMap.from_names(["a"]), "/nowhere", source="test data")
    for number in (3, 20, 1, 11, 2, 10):
        builder.add_image(f"f{number}.png", (40, 60), group="video")
    table, cut = with_large_groups_cut(builder.build(), 3)
    runs: dict[str, list[str]] = {}
    for name, group in zip(table.media.tolist(), table.group.tolist(), strict=True):
        runs.setdefault(group, []).append(name)
    assert (sorted(map(sorted, runs.values())), cut) == (
        [["f1.png", "f2.png", "f3.png"], ["f10.png", "f11.png", "f20.png"]],
        1,
    )
