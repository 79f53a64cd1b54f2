"""Small files that need gigabytes, minutes or a traceback in a program that trusts them, at every entry point."""

from __future__ import annotations

import io
import resource
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import yaml

import detseg.image_container as container
from detseg.annotations.formats.coco.read import read_coco
from detseg.annotations.formats.cvat.mask_runs import row_runs_rle
from detseg.annotations.formats.shared.json_file import load_tool_json
from detseg.annotations.formats.shared.xml_file import parse_xml
from detseg.annotations.formats.shared.yaml_text import parse_yaml
from detseg.annotations.listing import MAX_DEPTH, list_folder
from detseg.annotations.repair_log import RepairLog
from detseg.cli import main
from detseg.errors import MAX_MESSAGE, DataError
from detseg.images import decode_image, read_header
from detseg.inference.predictor import pick_device
from detseg.json_text import JsonError, decode_json
from detseg.label_images import decode_label_png
from detseg.masks import check_polygons
from detseg.models.weights.state_files import read_weights_file
from detseg.postprocess import crop_rle
from detseg.runtime.native_lines import with_native_lines

SECONDS = 10
COCO = '{"images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}], "categories": [{"id": 1, "name": "a"}], '


@pytest.fixture(scope="module")
def cases(shared_data: Path) -> Path:
    folder = shared_data / "attack_cases"
    if not folder.is_dir():
        pytest.skip("no folder attack_cases in the real data")
    return folder


def image_bytes(array: np.ndarray, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(array).save(file, format, **options)
    return file.getvalue()


def one_line_error(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The only line that a failing command prints to stderr."""
    assert main(list(map(str, arguments))) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert len(lines[0]) < MAX_MESSAGE + 100
    return lines[0]


@pytest.mark.parametrize("name", ["png_75_bytes_2.8GB.png", "png_chunk_length_bomb_49_bytes.png"])
def test_png_chunks(cases: Path, tmp_path: Path, name: str) -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for decode in (decode_image, decode_label_png):
        with pytest.raises(DataError, match=rf"{name}: corrupt or truncated PNG.*'IDAT'.*longer than the rest"):
            decode(cases / name)
    assert time.process_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kB"


@pytest.mark.parametrize("name", ["coco_badutf.json", "coco_5000digits.json"])
def test_coco(cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    shutil.copy(cases / name, tmp_path)
    with pytest.raises(DataError, match=name):
        read_coco(tmp_path / name)
    line = one_line_error(capsys, "inspect", tmp_path / name)
    assert name in line
    assert "codec can't decode" not in line
    assert "Exceeds the limit" not in line


def test_deep_json_beside_a_good_set(cases: Path, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(COCO + '"annotations": []}')
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    shutil.copy(cases / "deep.json", tmp_path)
    assert main(["inspect", str(tmp_path)]) in (0, 1)
    assert main(["inspect", str(tmp_path / "deep.json")]) == 1


def test_yaml(cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, name in (("images", "a.png"), ("labels", "a.txt")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(png() if folder == "images" else b"0 .5 .5 .5 .5")
    shutil.copy(cases / "yaml_overflow.yaml", tmp_path / "data.yaml")
    assert "data.yaml: not YAML" in one_line_error(capsys, "inspect", tmp_path)


def test_cvat_mask(cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PIL.Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    shutil.copy(cases / "cvat_mask_huge.xml", tmp_path / "annotations.xml")
    started = time.process_time()
    assert "annotations.xml" in one_line_error(capsys, "inspect", tmp_path)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", ["dtype4.safetensors", "meta_int.safetensors", "intkey.pth"])
def test_model_files(cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(DataError, match=name):
        read_weights_file(cases / name)
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(cases / name, run / "best.safetensors")
    PIL.Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    assert "best.safetensors" in one_line_error(capsys, "predict", run, tmp_path / "a.png", "--output", tmp_path / "o")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*before_pixels: bytes, after: tuple[bytes, ...] = ()) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(2 * 13)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before_pixels) + pixels + b"".join(after) + chunk(b"IEND", b"")


def progressive(copies: int, size: int = 64) -> bytes:
    """A JPEG whose last scan is repeated."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    data = image_bytes(noise, "JPEG", progressive=True)
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * copies + data[-2:]


def tiff(entries: int) -> bytes:
    """Tags that all point to the whole file."""
    tags = b"".join(struct.pack("<HHII", 300 + i, 7, 200_000, 8) for i in range(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + tags + bytes(200_000)


def bmp_runs(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 1024) + header + bytes(1024) + b"\1\5\0\0" * height


BOMBS: dict[str, Callable[[], bytes]] = {
    "more than 100 compressed texts": lambda: png(after=(chunk(b"zTXt", b"a\0\0x"),) * 101),
    "IHDR is not its first and only": lambda: png(chunk(b"IHDR", struct.pack(">IIBBBBB", 9999, 9999, 8, 2, 0, 0, 0))),
    "a PNG with more than 100000 chunks": lambda: png(chunk(b"tEXt", b"a\0b") * 100_001),
    "too many scans": lambda: progressive(copies=60),
    "a JPEG with more than 100000 segments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 100_001,
    "its tags point to 381 MiB": lambda: tiff(2000),
    "a run-length encoded BMP of 30000 x 3000": lambda: bmp_runs(30_000, 3000),
    "shorter than an image of 9999 x 9999": lambda: b"P6 9999 9999 255\n1",
    "a plain .text. PNM of 30000000": lambda: b"P3 5000 2000 255\n" + b"1 " * 30_000_000,
    "more than 1000 comments": lambda: b"P2 2 2 255\n" + b"#\n" * 1001 + b"1 2 3 4\n",
    "no width, height and maximum": lambda: b"P5 #" + b"a" * 2**17 + b"\n2 2 255\n1234",
    "the image has 268435456 pixels": lambda: b"RIFF\x1a\0\0\0WEBPVP8X\n\0\0\0\x10\0\0\0" + b"\xff\x3f\0" * 2,
}


@pytest.mark.parametrize("message", BOMBS)
def test_decoder_bombs(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if message == "too many scans":
        monkeypatch.setattr(container, "MAX_SCANNED", 64 * 64 * 50)
    data = BOMBS[message]()
    started = time.process_time()
    for decode in (decode_image, decode_label_png):
        with pytest.raises(DataError, match=rf"bomb: .*{message}"):
            decode(data, name="bomb")
    assert time.process_time() - started < 2


def test_sound_files_are_not_bombs() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for format in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM"):
        data = image_bytes(image, format)
        assert decode_image(data).shape == image.shape
        assert read_header(data).size_hw == (40, 30)
    assert decode_image(progressive(copies=5)).shape == (64, 64, 3)
    assert decode_image(png(chunk(b"zTXt", b"a\0\0" + zlib.compress(b"text")))).shape == (2, 4, 3)
    header = b"P5" + b" " * 60 + b"#c\r2 2 300\n"  # took exponential time
    assert decode_image(header + bytes(8), value_range=(0, 300)).shape == (2, 2, 3)


def test_file_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**30)
    for read in (read_header, decode_image):
        with pytest.raises(DataError, match=r"a.png: 1024 MiB; image files of at most 512 MiB"):
            read(tmp_path / "a.png")


def test_native_lines_are_caught_and_name_the_file(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = bytearray(image_bytes(noise, "JPEG"))
    for position in range(700, len(data) - 50, 97):
        data[position] ^= 0x55
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert "Corrupt JPEG data" in capfd.readouterr().err, "the control: libjpeg writes a line"
    from detseg.images import EncodedImage

    encoded = EncodedImage(bytes(data), name="x.jpg")
    encoded.decode()
    assert encoded.damage.startswith("x.jpg: damaged JPEG file (Corrupt JPEG data")
    assert capfd.readouterr().err == ""


def test_native_lines_of_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor
    from os import write

    def work(number: int) -> list[str]:
        return with_native_lines(lambda: write(2, b"line %d\n" % number) if number % 3 == 0 else time.sleep(0.001))[1]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(60)))
    assert results == [[f"line {number}"] if number % 3 == 0 else [] for number in range(60)]


def test_mask_runs_equal_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width = rng.integers(1, 9, 2).tolist()
        top, left = rng.integers(0, 4, 2).tolist()
        size = (top + height + int(rng.integers(0, 3)), left + width + int(rng.integers(0, 3)))
        runs = np.diff(np.sort(rng.integers(0, height * width + 1, 4)), prepend=0, append=height * width)
        pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        assert row_runs_rle(runs, top, left, (height, width), size) == crop_rle(pixels, top, left, size)


def test_long_rings() -> None:
    ring = np.random.default_rng(0).uniform(0, 20_000, (2000, 2))
    with pytest.raises(DataError, match=r"here: ring 0 of the polygon is \d+ pixels long"):
        check_polygons([ring], (20_000, 20_000), "here")
    angles = np.linspace(0, 2 * np.pi, 5000)
    circle = 10_000 + 9000 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert len(check_polygons([circle], (20_000, 20_000), "here")[0]) == 5000


def test_doubled_keys(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"f.yaml, line 3: the key 'a' is in line 1, too"):
        parse_yaml("a: 1\nb: 2\na: 3\n", "f.yaml")
    assert yaml.safe_load("a: 1\na: 3\n") == {"a": 3}, "the control: the first is lost"
    (tmp_path / "a.json").write_text(COCO + '"annotations": [], "annotations": []}')
    with pytest.raises(DataError, match=r"a.json: the key 'annotations' occurs twice"):
        read_coco(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"a.json.*the key 'annotations' occurs twice"):
        load_tool_json(tmp_path / "a.json", "a.json", dict, "VIA", RepairLog())
    with pytest.raises(JsonError, match="nested too deeply"):
        decode_json(b"[" * 100_000, list)


@pytest.mark.parametrize("images", [120_000, pytest.param(1_200_000, marks=pytest.mark.slow)])
def test_xml_of_40_megabytes(tmp_path: Path, images: int) -> None:
    path = tmp_path / "a.xml"
    image = '<image><box a="1" b="2"/></image>'
    path.write_text(f"<annotations>{image * images}</annotations>")
    started = time.process_time()
    assert len(parse_xml(path, "a.xml")) == images
    assert time.process_time() - started < SECONDS * images / 2_000_000
    path.write_text(f"<annotations>{'<a/>' * 4_000_001}</annotations>")
    with pytest.raises(DataError, match=r"a.xml: more than 4000000 elements"):
        parse_xml(path, "a.xml")


def test_nested_folders(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(MAX_DEPTH + 5):
        folder /= "a"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=f"folders are nested deeper than {MAX_DEPTH}"):
        list_folder(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (b"a", b"b"):
        (tmp_path / name.decode()).mkdir()
        data = image_bytes(np.zeros((8, 8, 3), np.uint8), "PNG")
        Path(f"{tmp_path}/{name.decode()}/x.png").write_bytes(data)
        (tmp_path / name.decode() / "caf\udce9.md").write_bytes(b"")  # does not matter
    assert main(["inspect", str(tmp_path)]) in (0, 1)
    capsys.readouterr()
    (tmp_path / "a" / "caf\udce9.png").write_bytes(data)
    for arguments in (["inspect", tmp_path], ["convert", tmp_path, tmp_path / "new", "--to", "coco"]):
        assert r"b'a/caf\xe9.png' is not UTF-8" in one_line_error(capsys, *arguments)


def test_device_without_values() -> None:
    for name in ("meta", "vulkan", "hpu", "cuda:99", "\x1b[31m", "mkldnn"):
        with pytest.raises(DataError, match="device"):
            pick_device(name)


def test_messages_are_short_and_printable() -> None:
    text = str(DataError("file.json: " + "x" * 10**6 + "\x1b[2J\n" + "; remove it"))
    assert len(text) == MAX_MESSAGE
    assert text.startswith("file.json: xxx")
    assert text.endswith(r"\x1b[2J\n; remove it")


def test_edited_options_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ('epochs = "many"', "data = 5", "lr = [1]", "\xff", "epochs = ", "no_such = 1"):
        (tmp_path / "config.toml").write_bytes(text.encode("latin-1"))
        assert "config.toml" in one_line_error(capsys, "train", "--resume", tmp_path)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    (tmp_path / "a.json").write_text("{")
    line = f"exec {sys.executable} -m detseg inspect {tmp_path / 'a.json'} {closed}"
    finished = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stdout + finished.stderr
    assert finished.stdout == ""
