"""Splits: reproducible from the seed, stratified by class, groups kept together, restored from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from detseg.annotations.builder import TableBuilder
from detseg.annotations.duplicates import shared_content
from detseg.annotations.split import Splits, class_presence, split, subset
from detseg.annotations.split_file import read_split, write_split
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError

NAMES = ("common", "rare", "rarest")


def make_table(
    labels: Sequence[Sequence[int]],
    *,
    files: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    root: str = "/nowhere",
    first_id: int = 1,
) -> AnnotationTable:
    """One image for every list of labels, with a 4 x 4 box for each."""
    builder = TableBuilder(ClassMap.from_names(NAMES), root, source="test data")
    for row, image_labels in enumerate(labels):
        builder.add_image(
            files[row] if files else f"img_{row:03}.jpg",
            (20, 30),
            image_id=first_id + row,
            split=splits[row] if splits else "",
            group=groups[row] if groups else "",
        )
        for label in image_labels:
            builder.add_instance([1, 2, 4, 4], label)
    return builder.build()


def class_table(indices: Sequence[int]) -> AnnotationTable:
    builder = TableBuilder(ClassMap.from_names(NAMES), "/nowhere", source="test data")
    for row, index in enumerate(indices):
        builder.add_image(f"{row}.jpg", (20, 30), class_index=index)
    return builder.build()


def ids(splits: Splits) -> dict[str, list[int]]:
    return {name: table.image_id.tolist() for name, table in splits.items()}


def sizes(splits: Splits) -> dict[str, int]:
    return {name: len(table) for name, table in splits.items()}


@pytest.mark.parametrize(
    ("number", "options", "expected"),
    [
        (1, {}, {"train": 1, "val": 1}),
        (2, {}, {"train": 1, "val": 1}),
        (3, {}, {"train": 2, "val": 1}),
        (3, {"test": 0.1}, {"train": 1, "val": 1, "test": 1}),
        (4, {"val": 0.01}, {"train": 3, "val": 1}),
        (4, {"val": 0.99}, {"train": 1, "val": 3}),
        (10, {"val": 0.3}, {"train": 7, "val": 3}),
        (99, {}, {"train": 79, "val": 20}),
        (100, {}, {"train": 65, "val": 20, "test": 15}),
        (100, {"test": 0.0}, {"train": 80, "val": 20}),
        (40, {"test": 0.25, "val": 0.25}, {"train": 20, "val": 10, "test": 10}),
        (1, {"val": 0.0}, {"train": 1}),
        (120, {"val": 0.0}, {"train": 120}),
        (100, {"val": 0.0, "test": 0.2}, {"train": 80, "test": 20}),
    ],
)
def test_sizes(number: int, options: dict[str, float], expected: dict[str, int]) -> None:
    table = make_table([[1]] * number)
    splits = split(table, **options)  # type: ignore[arg-type]
    assert sizes(splits) == expected
    if number > 1:
        assert (
            sorted(image_id for image_ids in ids(splits).values() for image_id in image_ids) == table.image_id.tolist()
        )


def test_one_image_is_in_both_splits_with_a_note() -> None:
    table = make_table([[1]])
    splits = split(table)
    assert any("only one" in line and "img_000.jpg" in line for line in splits["train"].notes.lines())
    assert not table.notes  # the input table is unchanged


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (make_table([]), {}, "no images"),
        (make_table([[1]] * 2), {"test": 0.2}, "2 images cannot be split into train, val, test"),
        (make_table([[1]] * 5), {"val": -0.1}, "leave no images"),
        (make_table([[1]] * 5), {"val": 1.0}, "leave no images"),
        (make_table([[1]] * 5), {"val": 0.0, "test": 1.0}, "leave no images"),
        (make_table([[1]] * 5), {"val": 0.6, "test": 0.4}, "leave no images"),
        (make_table([[1]] * 5), {"by": "random"}, "auto, stratified, group or source"),
        (make_table([[1]] * 5), {"by": "source"}, "no train split"),
        (make_table([[1]] * 5), {"by": "stratified", "groups": "(.)"}, "pass only one of the two"),
        (make_table([[1]] * 5, groups=["a"] * 5), {}, "1 groups cannot be split"),
        (make_table([[1]] * 5), {"groups": "img_"}, "parentheses"),
        (make_table([[1]] * 5), {"groups": "(img"}, "not a regular expression"),
        (make_table([[1]] * 5), {"groups": "clip([0-9])"}, "no file name matches; the first ones are img_000.jpg"),
    ],
)
def test_rejected(table: AnnotationTable, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(table, **options)  # type: ignore[arg-type]


def test_splits_depend_on_the_seed() -> None:
    table = make_table([[1 + i % 3] for i in range(60)])
    assert ids(split(table, seed=3)) == ids(split(table, seed=3))
    assert ids(split(table, seed=3)) != ids(split(table, seed=4))


@pytest.mark.parametrize("seed", range(5))
def test_detection_is_stratified(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = [
        [label for label, share in ((1, 0.7), (2, 0.15), (3, 0.05)) if generator.random() < share] for _ in range(95)
    ]
    table = make_table(labels)
    total = class_presence(table).sum(axis=0)
    for name, share in (("train", 0.8), ("val", 0.2)):
        counts = class_presence(split(table, seed=seed)[name]).sum(axis=0)
        assert np.all(np.abs(counts - share * total) <= 2), (name, counts, share * total)


def test_control_a_random_shuffle_is_not_stratified() -> None:
    indices = [0] * 40 + [1] * 40 + [2] * 5
    worst = 0.0
    for seed in range(20):
        chosen = np.random.default_rng(seed).permutation(85)[:17]
        worst = max(worst, float(np.abs(np.bincount(np.array(indices)[chosen], minlength=3) - [8, 8, 1]).max()))
        val_classes = split(class_table(indices), seed=seed)["val"].class_index[:, 0]
        assert np.abs(np.bincount(val_classes, minlength=3) - [8, 8, 1]).max() <= 0
    assert worst > 2


def test_crowds_do_not_count_as_presence() -> None:
    builder = TableBuilder(ClassMap.from_names(NAMES), "/nowhere", source="test data")
    builder.add_image("a.jpg", (20, 30))
    builder.add_instance([1, 1, 3, 3], 2, iscrowd=True)
    assert class_presence(builder.build()).tolist() == [[True, False, False, False]]


CLIPS = [f"clip {clip}_{frame:02}.jpg" for clip in range(8) for frame in range(6)]


def clips_of(table: AnnotationTable) -> set[str]:
    return {name.split("_")[0] for name in table.media.tolist()}


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_not_split(seed: int) -> None:
    table = make_table([[1 + i % 3] for i in range(48)], files=CLIPS)
    splits = split(table, seed=seed, groups=r"^(clip \d)_")
    assert not clips_of(splits["train"]) & clips_of(splits["val"])
    assert sizes(splits) == {"train": 36, "val": 12}
    control = split(table, seed=seed, by="stratified")
    assert clips_of(control["train"]) & clips_of(control["val"])


def test_groups_from_a_csv_file_and_from_the_table(tmp_path: Path) -> None:
    table = make_table([[1]] * 48, files=CLIPS)
    file = tmp_path / "groups.csv"
    file.write_text("file,group\n" + "".join(f"{name},{name.split('_')[0]}\n" for name in CLIPS), encoding="utf-8")
    from_file = split(table, groups=file)
    from_table = split(make_table([[1]] * 48, files=CLIPS, groups=[name.split("_")[0] for name in CLIPS]))
    assert ids(from_file) == ids(from_table) == ids(split(table, groups=r"^(clip \d)_"))
    file.write_text("clip 0_00.jpg,a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"47 images have no group: clip 0_01\.jpg"):
        split(table, groups=file)
    file.write_text("clip 0_00.jpg,a\nclip 0_00.jpg,b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2: .* is already in group a"):
        split(table, groups=file)
    file.write_text("clip 0_00.jpg\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: .* is not file,group"):
        split(table, groups=file)


@pytest.mark.parametrize("lengths", [[1, 1], [50, 50], [97, 1, 2], [30, 30, 30, 10]])
def test_no_split_is_empty_with_uneven_groups(lengths: list[int]) -> None:
    groups = [f"g{g}" for g, length in enumerate(lengths) for _ in range(length)]
    splits = split(make_table([[1]] * len(groups), groups=groups), test=0)
    assert min(sizes(splits).values()) >= 1
    assert not set(splits["train"].group.tolist()) & set(splits["val"].group.tolist())


def test_an_image_that_matches_no_group_is_a_separate_group() -> None:
    splits = split(make_table([[1]] * 3, files=["a1.jpg", "a2.jpg", "other.jpg"]), groups="(a)[0-9]")
    assert sorted(map(len, splits.values())) == [1, 2]


@pytest.mark.parametrize(
    ("source_splits", "options", "expected"),
    [
        (["train"] * 6 + ["val"] * 2, {}, {"train": 6, "val": 2}),
        (["train"] * 6 + ["val"] * 2 + ["test"], {}, {"train": 6, "val": 2, "test": 1}),
        (["train"] * 10, {}, {"train": 8, "val": 2}),
        (["train"] * 6 + ["val"] * 2 + ["test"], {"val": 0.0}, {"train": 8, "test": 1}),
        (["train"] * 10, {"val": 0.0}, {"train": 10}),
        (["train"] * 10 + ["test"] * 3, {}, {"train": 8, "val": 2, "test": 3}),
        (["train"] * 10 + ["val"] * 2, {"test": 0.2}, {"train": 8, "val": 2, "test": 2}),
        (["train"] * 6 + ["val"] * 2 + [""], {}, {"train": 6, "val": 2}),
        (["train"] * 6 + ["val"] * 4, {"by": "stratified"}, {"train": 8, "val": 2}),
        (["val"] * 5 + ["test"] * 5, {}, {"train": 8, "val": 2}),
    ],
)
def test_splits_of_the_source(source_splits: list[str], options: dict[str, object], expected: dict[str, int]) -> None:
    table = make_table([[1]] * len(source_splits), splits=source_splits)
    splits = split(table, **options)  # type: ignore[arg-type]
    assert sizes(splits) == expected
    if "" in source_splits:
        assert any("left out" in line for line in splits["train"].notes.lines())
    if "train" not in source_splits:
        assert any("not used" in line for line in splits["train"].notes.lines())


def test_subset_preserves_class_shares_and_larger_contains_smaller() -> None:
    table = make_table([[1]] * 60 + [[2]] * 30 + [[]] * 10)
    small, large = subset(table, 10, seed=1), subset(table, 20, seed=1)
    assert class_presence(small).sum(axis=0).tolist() == [1, 6, 3, 0]
    assert set(small.image_id) < set(large.image_id)
    assert small.record.tolist() == sorted(small.record)
    assert len(subset(table, 1000)) == 100
    with pytest.raises(DataError, match="subset of 0"):
        subset(table, 0)


@pytest.mark.parametrize("number", [1, 2, 30])
def test_a_saved_split_is_restored(number: int, tmp_path: Path) -> None:
    files = [f"фото {row}/bild ä.jpg" for row in range(number)]
    splits = split(make_table([[1]] * number, files=files))
    write_split(splits, tmp_path / "split.json", seed=0, how="stratified")
    moved = make_table([[1]] * number, files=files, root="/elsewhere", first_id=500)
    restored = read_split(moved, tmp_path / "split.json")
    assert {k: v.media.tolist() for k, v in restored.items()} == {k: v.media.tolist() for k, v in splits.items()}
    assert json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))["seed"] == 0


def test_missing_and_new_images_of_a_saved_split_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    write_split(split(make_table([[1]] * 10)), path)
    with pytest.raises(
        DataError, match=r"split\.json: 2 of its images are not in test data: .*img_009\.jpg \(image id 10"
    ):
        read_split(make_table([[1]] * 8), path)
    grown = read_split(make_table([[1]] * 12), path)
    assert sizes(grown) == {"train": 8, "val": 2}
    assert any("img_011.jpg" in line for line in grown["train"].notes.lines())


def test_one_file_with_several_image_ids_is_matched_by_id(tmp_path: Path) -> None:
    table = make_table([[1]] * 4, files=["a.jpg"] * 4)
    splits = split(table)
    write_split(splits, tmp_path / "split.json")
    assert ids(read_split(table, tmp_path / "split.json")) == ids(splits)


@pytest.mark.parametrize("text", ["", "[]", '{"splits": {}}', '{"format": "other", "splits": {}}'])
def test_other_files_are_not_split_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"pass the split\.json of a run"):
        read_split(make_table([[1]]), tmp_path / "x.json")


def test_the_same_image_in_two_splits_is_found(tmp_path: Path) -> None:
    for name, content in (
        ("a.jpg", b"one"),
        ("b.jpg", b"two"),
        ("c.jpg", b"one"),
        ("d.jpg", b"three"),
        ("e.jpg", b"one"),
    ):
        (tmp_path / name).write_bytes(content)
    table = make_table([[1]] * 5, files=["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"], root=str(tmp_path))
    assert shared_content({"train": table.subset([0, 2]), "val": table.subset([1, 3])}) == []
    assert shared_content({"train": table.subset([0, 1, 4]), "val": table.subset([2, 3])}) == [
        ("train: a.jpg", "val: c.jpg")
    ]
    three = {name: table.subset(rows) for name, rows in (("train", [0, 1]), ("val", [2, 3]), ("test", [4]))}
    assert shared_content(three) == [("train: a.jpg", "val: c.jpg"), ("train: a.jpg", "test: e.jpg")]
    assert shared_content({"train": table.subset([]), "val": table.subset([])}) == []


def test_many_copies_of_one_image_make_a_short_list(tmp_path: Path) -> None:
    (tmp_path / "black.jpg").write_bytes(b"black")
    table = make_table([[1]] * 60, files=["black.jpg"] * 60, root=str(tmp_path))
    assert len(shared_content({"train": table.subset(range(50)), "val": table.subset(range(50, 60))})) == 10


def test_instances_stay_with_their_image() -> None:
    table = make_table([[1] * row for row in range(10)])
    for images in split(table).values():
        assert [len(record) for record in images] == (images.image_id - 1).tolist()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("annotated", range(2))
@pytest.mark.parametrize("by", ["stratified", "group"])
def test_the_only_image_with_objects_is_in_train(annotated: int, seed: int, by: str) -> None:
    builder = TableBuilder(ClassMap.from_names(["a"]), "", source="test data")
    for number in range(2):
        builder.add_image(f"{number}.jpg", (40, 60), group=str(number))
        if number == annotated:
            builder.add_instance([1, 2, 30, 20], 1)
    splits = split(builder.build(), seed=seed, by=by)
    assert {name: part.media.tolist() for name, part in splits.items()} == {
        "train": [f"{annotated}.jpg"],
        "val": [f"{1 - annotated}.jpg"],
    }
