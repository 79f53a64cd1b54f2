"""Every planted fault is found, with the right file and a remedy; each one that can be mended is, so that the copy is
clean; the clean sets have no finding."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from detseg.annotations import AnnotationTable, read
from detseg.annotations.write_set import write_set
from detseg.doctor import Finding, inspect_images, inspect_table, mended, reader_changes
from detseg.doctor.mend import Change
from detseg.errors import DataError
from detseg.runtime.reporter import silent
from detseg.synthetic.demo.render import demo_folder
from tests.doctor import clean_set
from tests.doctor.faults import FAULTS, UNREADABLE, Fault

REMEDY = re.compile(r"; |correct|remove|pass |write ")
"""In messages of readers the remedy is the end of the sentence."""


CHECKS = {
    "area far smaller than the box": ("objects", "_small_areas"),
    "area larger than the box": ("objects", "_large_areas"),
    "background as a class": ("table", "inspect_classes"),
    "box and outline disagree": ("objects", "_different_outlines"),
    "box of less than a pixel": ("objects", "_small_boxes"),
    "class without instances": ("class_names", "_unused_findings"),
    "constant image": ("images", "_of_file"),
    "coordinates of another rotation": ("reader_notes", "_rotated"),
    "corrupt image": ("images", "_of_file"),
    "damaged image": ("images", "_of_file"),
    "grey image among colour images": ("images", "_other_channels"),
    "image without keypoints": ("class_balance", "_without_keypoints"),
    "instance without a mask": ("table", "inspect_masks"),
    "lost object": ("reader_notes", "_lost"),
    "nearly black image": ("images", "_of_file"),
    "nearly equal class names": ("class_names", "_nearly_equal"),
    "nearly repeated object": ("objects", "_repeated"),
    "nothing to learn": ("table", "_nothing_to_learn"),
    "rare class": ("class_balance", "_rare_classes"),
    "repeated file": ("table", "_repeated_files"),
    "repeated image": ("images", "_equal_files"),
    "repeated object": ("objects", "_repeated"),
    "rounded to float16": ("table", "inspect_rounding"),
    "same image in two splits": ("images", "images_in_two_splits"),
    "small objects": ("table", "inspect_split"),
    "unlabelled image": ("class_balance", "_unlabelled"),
}
"""Kind of finding -> module and name of its check."""


def findings_of(table: AnnotationTable) -> list[Finding]:
    """The errors and warnings of a table, as ``inspect`` finds them."""
    return [each for each in (*inspect_images(table), *inspect_table(table)) if each.severity != "note"]


def problems_of(folder: Path) -> list[Finding]:
    """The errors and warnings of a folder; one that cannot be read has one error."""
    try:
        return findings_of(read(folder))
    except DataError as error:
        return [Finding.of_text("error", UNREADABLE, str(folder), str(error))]


def mended_copy(folder: Path, copy: Path, format: str) -> list[Change]:
    """What ``inspect --fix`` does."""
    table = read(folder, bad_instances="mend", missing_images="drop")
    result, changes = mended(table, inspect_images(table))
    write_set(result, copy, format, silent())
    return [*reader_changes(table), *changes]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_planted_fault(fault: Fault, tmp_path: Path) -> None:
    data = tmp_path / "data"
    clean_set.written(data, fault.format)
    fault.plant(data)
    before = digests(data)
    problems = problems_of(data)
    matching = [each for each in problems if each.kind == fault.kind and fault.file in each.message]
    assert matching, problems
    assert {each.severity for each in matching} == {fault.severity}
    assert all(each.remedy or REMEDY.search(each.value) for each in matching)
    if fault.mended:
        written_as = {"boxes": "coco", "folders": "csv"}.get(fault.format, fault.format)
        changes = mended_copy(data, tmp_path / "copy", written_as)
        assert changes
        assert problems_of(tmp_path / "copy") == []
    assert digests(data) == before, "sources are never written"


@pytest.mark.parametrize(
    "format", ["coco", "boxes", "keypoints", "folders", "voc", "yolo", "cvat", "labelme", "via", "csv"]
)
def test_control_the_clean_set_has_no_problem_and_no_change(format: str, tmp_path: Path) -> None:
    clean_set.written(tmp_path / "data", format)
    assert problems_of(tmp_path / "data") == []
    written_as = {"boxes": "coco", "keypoints": "coco", "folders": "csv"}.get(format, format)
    assert mended_copy(tmp_path / "data", tmp_path / "copy", written_as) == []
    assert problems_of(tmp_path / "copy") == []


@pytest.mark.parametrize("kind", sorted({fault.kind for fault in FAULTS} - {UNREADABLE}))
def test_control_without_its_check_a_fault_is_not_found(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = next(fault for fault in FAULTS if fault.kind == kind)
    clean_set.written(tmp_path, fault.format)
    fault.plant(tmp_path)
    table = read(tmp_path)
    assert kind in {each.kind for each in findings_of(table)}
    module, function = CHECKS[kind]
    monkeypatch.setattr(f"detseg.doctor.{module}.{function}", lambda *_, **__: [])
    assert kind not in {each.kind for each in findings_of(table)}


def test_the_catalogue_is_large_and_its_names_differ() -> None:
    assert len(FAULTS) >= 60
    assert max(Counter(fault.name for fault in FAULTS).values()) == 1
    assert sum(fault.mended for fault in FAULTS) >= 30


@pytest.mark.parametrize("name", ["coco_open", "bccd", "oxford_pet_26", "padilla_metrics", "shapes", "flowers", "demo"])
def test_real_sets_have_no_error_and_no_warning(name: str, request: pytest.FixtureRequest) -> None:
    folder = demo_folder() if name == "demo" else request.getfixturevalue("shared_data") / name
    leaks = {"near-duplicates in two splits"} if name == "bccd" else set()  # the same field, focused or moved
    assert {each.kind for each in findings_of(read(folder))} == leaks
