"""Data that are not a data set: one line says what they are, where, and what to do, for every command."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg import read
from detseg.annotations.formats.all_formats import FORMATS
from detseg.cli import main
from detseg.errors import DataError
from detseg.options import EvaluateConfig
from detseg.runtime.reporter import silent
from detseg.synthetic.demo.render import demo_folder
from detseg.training.run_evaluation import select_split


def message(data: Path, **options: object) -> str:
    """The message for ``data``: one line that begins with the path."""
    with pytest.raises(DataError) as caught:
        read(data, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.startswith(f"{data}: ")
    assert "\n" not in text
    return text


def write_images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((8, 8, 3), np.uint8))
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "my photos", "a.png", "b.jpg", "sub/c.png")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("cells.tar.zst", "mkdir {0} && tar -xf {0}.tar.zst -C {0}"),
        ("cells.7z", "7z x {0}.7z -o{0}"),
        ("cells.rar", "unrar x {0}.rar {0}/"),
    ],
)
def test_an_archive_by_its_name(name: str, command: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    folder = tmp_path / "cells"
    expected = f"an archive, not a data set; unpack it ({command.format(folder)}) and pass the folder {folder}"
    assert message(tmp_path / name).endswith(expected)
    assert message(tmp_path / name, format="coco").endswith(expected)
    folder.mkdir()
    assert message(tmp_path / name).endswith(f"pass its folder, or {folder} if it was unpacked there")


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar"])
def test_an_archive_by_its_content(kind: str, images: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "x"), kind, images)).rename(tmp_path / "download")
    text = message(archive)
    assert "an archive without its suffix; rename it to download." in text
    renamed = Path(text.rpartition(" and pass ")[2])
    assert "it contains 3 images and no annotations" in message(archive.rename(renamed))
    assert zipfile.is_zipfile(renamed) or tarfile.is_tarfile(renamed), "control"


def test_the_command_that_unpacks_is_quoted(images: Path) -> None:
    (archive := images.with_suffix(".7z")).write_bytes(b"")
    shutil.rmtree(images)
    assert f"7z x '{archive}' -o'{images}'" in message(archive)


def test_a_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.json.gz"
    path.write_bytes(gzip.compress(b"{}"))
    assert f"a compressed file, not a data set; unpack it (gunzip -k {path}) and pass {tmp_path}" in message(path)


def test_one_image(images: Path) -> None:
    text = message(images / "a.png")
    assert "one image, not a data set; pass the folder that contains the images and their annotations" in text
    assert text.endswith(f"detseg predict RUN '{images / 'a.png'}'")


def test_images_only(images: Path) -> None:
    (images / "README.md").write_text("words", encoding="utf-8")
    text = message(images)
    assert "it contains 3 images and no annotations in the formats" in text
    assert all(format.name in text for format in FORMATS)
    assert "label the images with a tool such as CVAT" in text
    assert f"--images '{images}'" in text
    assert text.endswith(f"detseg predict RUN '{images}'")
    assert "3 images and no annotations in the format voc; omit --format" in message(images, format="voc")


def test_images_and_an_archive(images: Path) -> None:
    (images / "labels.7z").write_bytes(b"")
    text = message(images)
    assert "3 images and no annotations, but 1 archive (labels.7z); unpack" in text
    assert text.endswith(f"pass {images} again")


def test_images_and_annotations_in_an_archive(images: Path) -> None:
    with zipfile.ZipFile(images / "labels.zip", "w") as archive:
        archive.writestr("boxes.csv", "path,x1,y1,x2,y2,label\na.png,1,1,4,4,bolt\n")
    text = message(images)
    remedy = f"such as '{images}/labels.zip' --images '{images}'"
    assert "3 images and no annotations, but 1 archive (labels.zip); pass the one" in text
    assert text.endswith(remedy)
    assert len(read(images / "labels.zip", images=images)) == 1, "the remedy"


def test_archives_in_an_archive(images: Path, tmp_path: Path) -> None:
    inner = shutil.make_archive(str(tmp_path / "inner"), "zip", images)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "inner.zip")
    text = message(tmp_path / "outer.zip")
    assert text.endswith(f"1 archive (inner.zip); archives in an archive are not read: unpack {tmp_path}/outer.zip")


@pytest.mark.parametrize("other", ["labels.txt", "sub/c.xml"])
def test_control_other_files_may_be_annotations(other: str, images: Path) -> None:
    (images / other).write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"it contains 2 x \.png.*accepted formats"):
        read(images)


def test_control_masks_without_images_are_not_images_only(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="PNG masks named like their image"):
        read(write_images(tmp_path, "set/images/a.png", "set/masks/b.png"))


def test_masks_and_images_in_separate_places(images: Path, tmp_path: Path) -> None:
    (tmp_path / "masks.7z").write_bytes(b"")
    (tmp_path / "masks.json").write_text("{}", encoding="utf-8")
    assert "an archive" in message(tmp_path / "masks.7z", format="masks", images=images)
    assert "must be in a folder" in message(tmp_path / "masks.json", format="masks", images=images)


def test_url_and_missing_paths(images: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^https://example\.org/x\.zip: .*because it is a URL; download it"):
        read("https://example.org/x.zip")
    with pytest.raises(FileNotFoundError, match=r"no such file or folder; .* did you mean .*my photos"):
        read(images.parent / "my photo")
    with pytest.raises(FileNotFoundError, match=r"no such image folder; .* did you mean .*my photos"):
        read(images, images=images.parent / "my fotos")
    with pytest.raises(FileNotFoundError, match="URL"):
        read(demo_folder(), val_annotations="https://example.org/val.json")


@pytest.mark.parametrize("command", ["inspect DATA", "convert DATA OUT --to yolo", "train DATA --output OUT"])
def test_commands_print_one_line(command: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = images.parent / "out"
    paths = {"DATA": str(images), "OUT": str(out)}
    assert main([paths.get(word, word) for word in command.split()]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.match(rf"detseg \w+: {re.escape(str(images))}: .* 3 images and no annotations", lines[0])
    assert not out.exists()


def test_evaluate(images: Path) -> None:
    with pytest.raises(DataError, match="3 images and no annotations"):
        select_split(EvaluateConfig(run="runs/a", data=str(images)), Path("runs/a"), {}, silent())
