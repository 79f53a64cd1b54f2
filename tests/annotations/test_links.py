"""Links in data folders, in every format: followed if the user asks for it, named if they would be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.annotations import listing, read
from detseg.annotations.from_options import load_table
from detseg.annotations.listing import list_files, list_folder
from detseg.cli import main
from detseg.errors import DataError
from detseg.options import ConvertConfig, EvaluateConfig, InspectConfig, TrainConfig
from tests.annotations.one_image import ONE_IMAGE, put


def linked_set(format: str, tmp_path: Path) -> Path:
    """A set whose image folder is a link to a folder elsewhere."""
    put(tmp_path / "elsewhere/a.png")
    put(tmp_path / "elsewhere/notes.md", "words")
    root = tmp_path / "data"
    root.mkdir()
    (root / "photos 1").symlink_to(tmp_path / "elsewhere")
    ONE_IMAGE[format](root, "a.png", "photos 1/a.png")
    return root


@pytest.mark.parametrize("format", ONE_IMAGE)
def test_a_link_to_the_images(format: str, tmp_path: Path) -> None:
    root = linked_set(format, tmp_path)
    with pytest.raises(DataError, match="pass --follow-links") as refused:
        read(root)
    assert any(text in str(refused.value) for text in ("the link photos 1 points outside", "(photos 1 to "))
    table = read(root, follow_links=True)
    assert [record.path for record in table] == [root / "photos 1/a.png"]
    elsewhere = read(root, images=tmp_path / "elsewhere")  # then the link is not looked at
    assert [record.path for record in elsewhere] == [tmp_path / "elsewhere/a.png"]


@pytest.mark.parametrize("format", ONE_IMAGE)
def test_links_that_nobody_reads_are_no_reason_to_refuse(format: str, tmp_path: Path) -> None:
    put(tmp_path / "data/images/a.png")
    put(tmp_path / "elsewhere/readme.md", "words")
    ONE_IMAGE[format](tmp_path / "data", "a.png", "images/a.png")
    (tmp_path / "data/docs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/README.md").symlink_to(tmp_path / "elsewhere/readme.md")
    assert len(read(tmp_path / "data")) == 1


@pytest.mark.parametrize("format", ONE_IMAGE)
def test_loops_end(format: str, tmp_path: Path) -> None:
    root = linked_set(format, tmp_path)
    (root / "again").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/data").symlink_to(root)
    assert len(read(root, follow_links=True)) == 1


@pytest.mark.parametrize(
    ("format", "annotation", "linked"),
    [
        ("coco", "result.json", "val/more.json"),
        ("voc", "Annotations/item.xml", "Annotations/more.xml"),
        ("yolo", "labels/a.txt", "labels/more.txt"),
        ("cvat", "annotations.xml", "more.xml"),
        ("labelme", "item.json", "more.json"),
        ("via", "via.json", "more.json"),
        ("csv boxes", "boxes.csv", "more.csv"),
    ],
)
def test_a_link_to_annotations_is_not_left_out_silently(
    format: str, annotation: str, linked: str, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    put(root / "images/a.png")
    ONE_IMAGE[format](root, "a.png", "images/a.png")
    target = put(tmp_path / "elsewhere/file", (root / annotation).read_bytes())
    (root / linked).parent.mkdir(exist_ok=True)
    (root / linked).symlink_to(target)
    with pytest.raises(DataError, match=rf"the link {linked} points outside this folder, .*--follow-links"):
        read(root)
    (root / linked).unlink()
    assert len(read(root)) == 1  # control: it was the link


@pytest.mark.parametrize("values", [None, "binary"])
def test_folders_and_masks(values: str | None, tmp_path: Path) -> None:
    first, second = ("a", "b") if values is None else ("images", "masks")
    put(tmp_path / "data" / first / "1.png")
    put(tmp_path / "data" / second / "1.png")
    put(tmp_path / "elsewhere/2.png")
    (tmp_path / "data" / first / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"the link \w+/more points outside this folder, to .*--follow-links"):
        read(tmp_path / "data", mask_values=values)
    table = read(tmp_path / "data", mask_values=values, follow_links=True)
    assert [record.path.name for record in table].count("2.png") == 1


@pytest.mark.parametrize("config", [TrainConfig, EvaluateConfig, InspectConfig, ConvertConfig])
def test_every_command_follows_links(config: type[TrainConfig], tmp_path: Path) -> None:
    root = str(linked_set("coco", tmp_path))
    assert len(load_table(config(data=root, follow_links=True))) == 1
    with pytest.raises(DataError, match="--follow-links"):
        load_table(config(data=root))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = linked_set("via", tmp_path)
    assert main(["convert", str(root), str(tmp_path / "out"), "--to", "coco"]) == 1
    assert "--follow-links" in capsys.readouterr().err
    assert main(["convert", str(root), str(tmp_path / "out"), "--to", "coco", "--follow-links"]) == 0
    assert main(["inspect", str(root), "--follow-links", "--output", str(tmp_path / "sheet")]) == 0


def test_a_listing_names_links_and_hidden_files(tmp_path: Path) -> None:
    put(tmp_path / "in/a.png")
    put(tmp_path / "in/.hidden/b.png")
    put(tmp_path / "out/c.png")
    (tmp_path / "in/link").symlink_to(tmp_path / "out")
    (tmp_path / "in/inside").symlink_to(tmp_path / "in/a.png")
    assert list_folder(tmp_path / "in").files == ["a.png", "inside"]
    assert list_folder(tmp_path / "in").links == {"link": str((tmp_path / "out").resolve())}
    assert list_folder(tmp_path / "in").hidden == [".hidden"]
    assert list_files(tmp_path / "in", follow_links=True) == ["a.png", "inside", "link/c.png"]


def test_many_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_LINKS", 3)
    (tmp_path / "in").mkdir()
    for number in range(4):
        put(tmp_path / f"out{number}/c.png")
        (tmp_path / f"in/{number}").symlink_to(tmp_path / f"out{number}")
    with pytest.raises(DataError, match="more than 3 links to folders"):
        list_files(tmp_path / "in", follow_links=True)
