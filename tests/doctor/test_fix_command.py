"""``inspect --fix``, the page of problems, the lines at the start of a training, memory, and coverage of keypoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detseg.annotations import read
from detseg.cli import main
from detseg.doctor import check_lines, inspect_table, summary
from detseg.doctor.memory import MemoryNeed, inspect_memory
from detseg.runtime.machine import MachineFacts
from tests.doctor import clean_set
from tests.doctor.plants import of_data, of_file, of_first, put, with_class, with_copies


def planted(data: Path) -> None:
    clean_set.coco(data)
    of_data(with_copies)(data)
    of_first(put(area=1.0))(data)
    with_class("washer")(data)
    of_file("03.png", lambda content: content[:-3000])(data)


@pytest.mark.parametrize("format", [None, "voc", "csv"])
def test_a_repaired_copy_is_clean(format: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, copy, out = tmp_path / "data", tmp_path / "copy", tmp_path / "out"
    planted(data)
    to = [] if format is None else ["--to", format]
    assert main(["inspect", str(data), "--output", str(out), "--fix", str(copy), *to]) == 0
    printed = capsys.readouterr().out
    assert "error: corrupt image: 03.png: " in printed
    assert (
        f"wrote {copy} ({format or 'coco'}): 4 changes, listed in {out / 'changes.json'}; read again: 11 images, no "
        in printed
    )
    changes = json.loads((out / "changes.json").read_text(encoding="utf-8"))
    assert [(change["kind"], change["place"]) for change in changes["changes"]][:3] == [
        ("corrupt image", "03.png"),
        ("area far smaller than the box", "00.png, annotation 1"),
        ("repeated object", "00.png, annotation 100"),
    ]
    assert changes["left"] == []
    assert main(["inspect", str(copy), "--output", str(tmp_path / "again"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["images"], again["instances"], again["findings"]) == (11, 22, [])


def test_what_needs_a_person_is_left_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    clean_set.coco(data)
    of_data(lambda content: with_copies(content, 1, 0.4))(data)
    assert main(["inspect", str(data), "--output", str(tmp_path / "out"), "--fix", str(copy)]) == 0
    assert "left to you: warning: nearly repeated object: 00.png, annotation " in capsys.readouterr().out
    changes = json.loads((tmp_path / "out" / "changes.json").read_text(encoding="utf-8"))
    assert changes["changes"] == []
    assert [finding["kind"] for finding in changes["left"]] == ["nearly repeated object"]
    assert len(read(copy).label) == 25, "nothing is removed without a reason"


def test_data_that_cannot_be_read_is_a_finding_in_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    clean_set.coco(data)
    of_first(put(category_id=77))(data)
    assert main(["inspect", str(data), "--output", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    (finding,) = content["findings"]
    assert (finding["severity"], finding["kind"]) == ("error", "data that cannot be read")
    assert finding["value"] in message
    assert finding["remedy"]


def test_the_page_lists_and_draws_the_problems(tmp_path: Path) -> None:
    planted(tmp_path / "data")
    assert main(["inspect", str(tmp_path / "data"), "--output", str(tmp_path / "out")]) == 1
    page = (tmp_path / "out" / "sheet.html").read_text(encoding="utf-8")
    for kind in ("corrupt image", "repeated object", "area far smaller than the box"):
        assert f'<button type="button" data-kind="{kind}">' in page
        assert f'data-kind="{kind}">\n' in page or f'data-kind="{kind}"><img' in page
        assert f'<option value="{kind}">' in page
    assert "<td>class without instances<td>1<td>" in page, "it has no drawing"


def test_train_prints_a_few_lines_about_the_annotations(tmp_path: Path) -> None:
    clean_set.coco(tmp_path / "clean")
    assert check_lines(read(tmp_path / "clean")) == []
    planted(tmp_path / "data")
    lines = check_lines(read(tmp_path / "data"))
    assert lines[0].startswith("  warning: area far smaller than the box: 00.png, annotation 1: ")
    assert lines[-1] == "  detseg inspect checks the images, too, and lists all; --no-check omits these lines"
    assert len(lines) == 4


def test_memory_that_the_machine_does_not_have(tmp_path: Path) -> None:
    clean_set.coco(tmp_path)
    need = MemoryNeed.of(read(tmp_path), (480, 800))
    assert need is not None
    assert (need.image, need.pixels) == (96 * 72 * 3 * 3 + 2 * 480 * 800, (96, 72))
    assert need.shared == 480 * 800 * (3 + 2) * 4 * 2 * 4
    assert inspect_memory(need, MachineFacts(memory=10**9), shared=10**9) == []
    little = inspect_memory(need, MachineFacts(memory=1000), shared=64 * 2**20 // 100)
    assert [finding.kind for finding in little] == ["not enough memory", "not enough shared memory"]
    assert "--shm-size" in little[1].remedy
    assert inspect_memory(MemoryNeed.of(read(tmp_path).subset([]), (480, 800))) == []


def test_images_with_boxes_only_keypoints_only_both_and_neither(tmp_path: Path) -> None:
    clean_set.keypoints(tmp_path)
    with clean_set.edited(tmp_path) as data:
        first, second, third, fourth, *others = data["annotations"]
        first.update(keypoints=[0] * 6)
        second.update(keypoints=[0] * 6)
        for annotation in (third, fourth):
            del annotation["bbox"], annotation["area"]
        data["annotations"] = [first, second, third, fourth, *others[2:]]
    table = read(tmp_path)
    coverage = summary(table).coverage
    assert {kind: names for kind, names in coverage.items() if kind != "boxes and keypoints"} == {
        "boxes only": ["images/00.png"] if "/" in str(table.media[0]) else ["00.png"],
        "keypoints only": [str(table.media[1])],
        "neither": [str(table.media[2])],
    }
    assert [finding.kind for finding in inspect_table(table)] == ["image without keypoints"]
    assert "images: 9 with boxes and keypoints, 1 with boxes only, 1 with keypoints only, 1 with neither" in "\n".join(
        summary(table).lines()
    )
