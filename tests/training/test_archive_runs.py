"""Every command on archives: the same results as on the folder, and nothing is written into an archive."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detseg.cli import main
from tests.media.archives import pack

pytestmark = pytest.mark.usefixtures("no_images")

KINDS = (".zip", ".tar", ".tar.gz")
CPU = ("--device", "cpu", "--workers", "0")
Archives = dict[str, Path]


@pytest.fixture(scope="module")
def archives(colour_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archives]:
    """The class folders in archives of each kind, with a top folder; no command changes one, or writes beside it."""
    folder = tmp_path_factory.mktemp("archives")
    packed = {kind: pack(colour_folders, folder / f"data{kind}", top="colours") for kind in KINDS}
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*")}
    yield packed
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*")} == before


@pytest.fixture(scope="module")
def base(classify: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the folder."""
    return Path(classify(tmp_path_factory.mktemp("folder") / "run"))


@pytest.fixture(scope="module")
def zipped(archives: Archives, classify: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the zip."""
    return Path(classify(tmp_path_factory.mktemp("zip") / "run", data=archives[".zip"]))


def assert_equal_runs(run: Path, base: Path, rows: Any) -> None:
    """Equal losses, scores, splits and weights, bit for bit."""
    assert rows(run) == rows(base)
    assert (run / "split.json").read_bytes() == (base / "split.json").read_bytes()
    assert (run / "metrics.json").read_bytes() == (base / "metrics.json").read_bytes()
    assert (run / "best.safetensors").read_bytes() == (base / "best.safetensors").read_bytes()


def test_train_on_a_zip(zipped: Path, base: Path, rows: Any) -> None:
    assert_equal_runs(zipped, base, rows)


@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        (".tar", "2"),
        (".tar.gz", "2"),
        *(pytest.param(kind, "0", marks=pytest.mark.slow) for kind in (".tar", ".tar.gz")),
        pytest.param(".zip", "2", marks=pytest.mark.slow),
    ],
)
def test_train(
    kind: str, workers: str, archives: Archives, base: Path, classify: Any, rows: Any, tmp_path: Path
) -> None:
    assert_equal_runs(classify(tmp_path / "run", "--workers", workers, data=archives[kind]), base, rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_train_a_detector(kind: str, parts: Path, train: Any, rows: Any, tmp_path: Path) -> None:
    expected = rows(train(parts, tmp_path / "folder"))
    archive = pack(parts, tmp_path / f"parts{kind}", top="parts")
    assert rows(train(archive, tmp_path / "run", "--workers", "2")) == expected


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict[str, Any], str]:
    """The JSON of ``evaluate``, and what it prints to stderr."""
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json", *CPU]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_evaluate(zipped: Path, base: Path, archives: Archives, colour_folders: Path, capsys: Any) -> None:
    expected, _ = evaluated(capsys, base, "--split", "val")
    assert evaluated(capsys, zipped, "--split", "val")[0] == expected
    for data in (archives[".tar"], colour_folders, archives[".zip"] / "colours"):
        values, warned = evaluated(capsys, zipped, "--data", data, "--split", "val")
        assert values["accuracy"] == expected["accuracy"]
        assert "training" not in warned, "images of the training split are recognized by their content"


@pytest.mark.parametrize("moved", [False, True])
def test_resume(
    moved: bool, zipped: Path, base: Path, archives: Archives, rows: Any, tmp_path: Path, capsys: Any
) -> None:
    """A run on a zip goes on, also on a tar of the same files: its fingerprint is that of the files."""
    runs = [Path(shutil.copytree(run, tmp_path / name)) for run, name in ((zipped, "zipped"), (base, "base"))]
    where = ["--data", str(archives[".tar"])] if moved else []
    for run, options in zip(runs, (where, []), strict=True):
        capsys.readouterr()
        assert main(["train", "--resume", str(run), *options, "--epochs", "3", *CPU]) == 0
        assert "changed" not in capsys.readouterr().err
    assert_equal_runs(runs[0], runs[1], rows)


def test_predict(zipped: Path, archives: Archives, colour_folders: Path, tmp_path: Path, capsys: Any) -> None:
    for name, data in (("folder", colour_folders), ("zip", archives[".zip"]), ("tar", archives[".tar"] / "colours")):
        assert main(["predict", str(zipped), str(data), "--output", str(tmp_path / name), *CPU[:2]]) == 0
    values = {name: (tmp_path / name / "predictions.jsonl").read_text() for name in ("folder", "zip", "tar")}
    assert values["folder"].count("\n") == 18
    assert values["tar"] == values["folder"]
    assert values["zip"].replace('"colours/', '"') == values["folder"]
    drawn = [sorted(path.name for path in (tmp_path / name / "images").rglob("*.jpg")) for name in ("folder", "zip")]
    assert drawn[0] == drawn[1] != []
    image = archives[".zip"] / "colours/red/film0_red_0.png"
    assert main(["predict", str(zipped), str(image), "--output", str(tmp_path / "one"), *CPU[:2]]) == 0
    assert (tmp_path / "one/predictions.jsonl").read_text().count("\n") == 1


def test_inspect_and_convert(parts: Path, tmp_path: Path, capsys: Any) -> None:
    archive = pack(parts, tmp_path / "parts.tgz", top="parts")
    summaries = []
    for data, output in ((parts, "a"), (archive, "b")):
        assert main(["inspect", str(data), "--output", str(tmp_path / output)]) == 0
        summaries.append(json.loads((tmp_path / output / "summary.json").read_text()))
        capsys.readouterr()
        assert main(["convert", str(data), str(tmp_path / f"{output} yolo"), "--to", "yolo"]) == 0
        assert "24 of 24 instances" in capsys.readouterr().out
    assert {**summaries[0], "source": ""} == {**summaries[1], "source": ""}
    files = [sorted((tmp_path / f"{name} yolo").rglob("*.*")) for name in "ab"]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True) if a.is_file())


@pytest.mark.parametrize("inside", ["", "new"])
def test_nothing_is_written_into_an_archive(
    inside: str, archives: Archives, parts: Path, zipped: Path, capsys: Any
) -> None:
    target = str(archives[".zip"] / inside)
    for arguments in (
        ["convert", str(parts), target, "--to", "yolo"],
        ["inspect", str(parts), "--output", target],
        ["predict", str(zipped), str(parts / "val"), "--output", target, *CPU[:2]],
        ["train", str(parts), "--output", target, "--epochs", "1", *CPU],
    ):
        assert main(arguments) != 0, arguments
        printed = capsys.readouterr().err
        assert target in printed, arguments
        assert "Traceback" not in printed
