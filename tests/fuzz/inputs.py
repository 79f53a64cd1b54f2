"""Make input number N of a seed, and pass it to what reads it."""

from __future__ import annotations

import io
import os
import re
import shutil
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

import detseg.recipes.convert
import detseg.recipes.evaluate
import detseg.recipes.inspect
import detseg.recipes.train  # noqa: F401  (all before the processes are forked)
from detseg.cli import main, parse
from detseg.command_line.commands import COMMANDS
from detseg.command_line.values import checked
from detseg.errors import MAX_MESSAGE, DataError
from detseg.images import EncodedImage, read_header
from detseg.inference import predictor
from detseg.label_images import decode_label_colours, decode_label_png
from detseg.models.weights.state_files import read_weights_file
from detseg.options import TrainConfig
from detseg.runtime.reporter import silent
from detseg.short_text import one_line
from detseg.training.resume import resumed_config
from tests.fuzz import seeds
from tests.fuzz.mutations import NUMBERS, OUTSIDE, TEXTS, change_bytes, change_header, change_image, change_json
from tests.fuzz.mutations import change_text as change_token

KINDS = {"image": 30, "set": 45, "weights": 10, "run": 4, "options": 8, "results": 3}
"""Kind of input -> its share in percent."""

FOREIGN = re.compile(
    r"codec can't|Expecting |invalid literal|could not convert|has no attribute|not subscriptable|unhashable|"
    r"out of range$|Exceeds the limit|maximum recursion|alloc|Traceback|NoneType|argument must be|unsupported operand|"
    r"OpenCV|^'\w+'$"
)
"""What messages of libraries say; inside of parentheses, behind our own words, it is allowed."""

_IMAGES = ("a.png", "b.png", "c.png", "d.png")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def kind_of(seed: int, number: int, kinds: dict[str, int]) -> str:
    rng = Random(f"{seed} {number} kind")
    return rng.choices(list(kinds), list(kinds.values()))[0]


class Inputs:
    """Runs inputs in a folder of its own; each returns what is wrong with its outcome, "" for nothing."""

    def __init__(self, folder: Path, seed: int, kinds: dict[str, int] | None = None) -> None:
        self.root, self.seed, self.kinds = folder / "data", seed, kinds or KINDS
        self.root.mkdir(parents=True)
        outside = folder / "outside"
        outside.mkdir()
        for suffix in (".png", ".txt", ".json"):
            (outside / f"secret{suffix}").write_bytes(seeds.images()["png"])
        self._weights = _weights_files()

    def run(self, number: int) -> str:
        """Run one input."""
        rng = Random(f"{self.seed} {number}")
        kind = kind_of(self.seed, number, self.kinds)
        runners: dict[str, Callable[[Random], str]] = {
            "image": self._image,
            "set": self._set,
            "weights": self._weights_file,
            "run": self._run_folder,
            "options": self._options,
            "results": self._results,
        }
        return runners[kind](rng)

    def _image(self, rng: Random) -> str:
        name = rng.choice(list(seeds.images()))
        data = change_image(seeds.images()[name], rng)

        def decode() -> None:
            encoded = EncodedImage(data, name="input.img")
            encoded.stated_range()
            pixels = encoded.decode(
                min_hw=rng.choice((None, (4, 4))), value_range=rng.choice((None, None, (0, 255), (0, 300)))
            )
            if pixels.dtype != "uint8" or pixels.shape[2:] != (3,):
                raise AssertionError(f"decoded to {pixels.dtype} {pixels.shape}")

        functions: list[Callable[[], Any]] = [
            decode,
            lambda: read_header(data, name="input.img"),
            lambda: decode_label_png(data, name="input.img"),
            lambda: decode_label_colours(data, name="input.img"),
        ]
        return next(filter(None, (self._call(function, "input.img") for function in functions)), "")

    def _set(self, rng: Random) -> str:
        self._clear()
        name = rng.choice(list(seeds.SETS))
        seeds.write_set(self.root, name)
        file = rng.choice(list(seeds.SETS[name]))
        content = _changed(file, seeds.SETS[name][file], rng)
        case = rng.random()
        if case < 0.1:  # a stray file beside a good set
            file = f"{rng.choice(('', 'images/', 'annotations/'))}stray{Path(file).suffix}"
        elif case < 0.13:
            file = str(
                Path(file).with_name(rng.choice(("caf\udce9", "日本", "\x1b[2J", "a" * 200)) + Path(file).suffix)
            )
        seeds.write(self.root / file, content)
        verb = ["inspect", str(self.root)]
        if rng.random() < 0.2:
            shutil.rmtree(self.root.parent / "new", ignore_errors=True)
            verb = ["convert", *verb[1:], str(self.root.parent / "new"), "--to", rng.choice(("coco", "yolo", "voc"))]
        return self._command(verb, str(self.root), Path(file).name, *seeds.SETS[name], *_IMAGES)

    def _weights_file(self, rng: Random) -> str:
        self._clear()
        name = rng.choice(list(self._weights))
        data = self._weights[name]
        changed = change_header(data, rng) if name.endswith("safetensors") else change_bytes(data, rng)
        if name.startswith("odd"):
            changed = data
        path = self.root / name
        seeds.write(path, changed)
        return self._call(lambda: read_weights_file(path), name)

    def _run_folder(self, rng: Random) -> str:
        self._clear()
        folder = self.root / "run"
        seeds.write(folder / "config.toml", change_token(seeds.CONFIG, rng))
        verb = rng.choice((["train", "--resume", str(folder)], ["train", "--config", str(folder / "config.toml")]))
        if verb[1] == "--config":  # with an unknown option, so that no valid file starts a run
            return self._parse("train", [*verb[1:], "--no-such-option"])

        def resume() -> None:
            config = resumed_config(TrainConfig(resume=str(folder)), folder, silent())
            for name, option in COMMANDS["train"].options.items():
                checked(option, getattr(config, name), "an option of a wrong type was accepted")

        wrong = self._call(resume, "config.toml", "--")
        return wrong or self._command(verb, "config.toml", "/data", str(folder), "--", "device '", "model '")

    def _options(self, rng: Random) -> str:
        if rng.random() < 0.1:
            device = rng.choice((*TEXTS, "meta", "vulkan", "cpu", "cuda:99", "mkldnn", "hpu", "privateuseone", "xla"))
            return self._call(lambda: predictor.pick_device(device), "device")
        name = rng.choice(list(COMMANDS))
        flags = [flag for option in COMMANDS[name].options.values() for flag in option.flags]
        words = []
        for _ in range(rng.randint(1, 4)):
            flag = rng.choice((*flags, "--device", "--no-such", "-x", "--", "---"))
            value = rng.choice((*NUMBERS, *TEXTS, "[1,2]", "[", "cpu", "detect", "0.1"))
            words += rng.choice(([flag, value], [f"{flag}={value}"], [value], [flag]))
        return self._parse(name, words)

    def _results(self, rng: Random) -> str:
        self._clear()
        ground_truth, results = str(seeds.SETS["coco"]["annotations.json"]), seeds.RESULTS
        is_ground_truth = rng.random() < 0.5
        seeds.write(self.root / "annotations.json", change_json(ground_truth, rng) if is_ground_truth else ground_truth)
        seeds.write(self.root / "results.json", results if is_ground_truth else change_json(results, rng))
        verb = [
            "evaluate",
            "--ground-truth",
            str(self.root / "annotations.json"),
            "--predictions",
            str(self.root / "results.json"),
        ]
        return self._command(verb, "annotations.json", "results.json")

    def _clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()

    def _parse(self, name: str, words: list[str]) -> str:
        text = io.StringIO()
        with redirect_stdout(io.StringIO()), redirect_stderr(text):
            try:
                parse(name, words)
            except SystemExit as error:
                if error.code not in (0, 2):
                    return f"exit code {error.code} of {name} {words}"
            except BaseException as error:
                return f"{type(error).__name__} of {name} {words}: {error}"
        return wrong_lines(text.getvalue(), f"detseg {name}: ")

    def _call(self, function: Callable[[], Any], *names: str) -> str:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                function()
            except DataError as error:
                return wrong_lines(str(error), *names)
            except OSError as error:
                return "" if any(name in str(error) for name in names) else f"OSError without a name: {error}"
            except BaseException as error:
                return f"{type(error).__name__}: {error}"
        lines = [str(warning.message) for warning in caught if "PIL" not in warning.filename]
        return f"warning: {lines[0]}" if lines else ""

    def _command(self, arguments: list[str], *names: str) -> str:
        text = io.StringIO()
        with redirect_stdout(io.StringIO()), redirect_stderr(text):
            try:
                code = main(arguments)
            except SystemExit as error:
                code = int(error.code or 0)
            except BaseException as error:
                return f"{type(error).__name__} of {' '.join(arguments)}: {error}"
        if code not in (0, 1, 2) or (code and arguments[0] != "inspect" and not text.getvalue()):
            return f"exit code {code} of {' '.join(arguments)}"
        return wrong_lines(text.getvalue(), *names)


def wrong_lines(text: str, *names: str) -> str:
    """What is wrong with the lines of an error: "" if it is one line, short, with a name, in words of this project."""
    lines = [line for line in text.splitlines() if not line.startswith(("  ", "pass --format"))]  # without listings
    if not lines:
        return ""
    notices = [line for line in lines if "the old name will be removed" in line]
    if len(lines) - len(notices) > 1:
        return f"several lines: {text[:600]}"
    line = lines[-1]
    if len(line) > MAX_MESSAGE + 200:
        return f"a line of {len(line)} characters: {line[:200]}"
    if _CONTROL.search(text):
        return f"control characters: {line!r}"
    if not any(name in line or one_line(name) in line or repr(os.fsencode(name))[2:-1] in line for name in names):
        return f"no name of a file in: {line}"
    own = re.sub(r"\([^()]*(\([^()]*\))?[^()]*\)", "", line)
    return f"words of a library: {line}" if FOREIGN.search(own) else ""


def _changed(file: str, content: str | bytes, rng: Random) -> bytes:
    if isinstance(content, bytes):
        return change_bytes(content, rng) if file.endswith(".npy") else change_image(content, rng)
    if rng.random() < 0.02:
        return rng.choice((b"", b"\0" * 100, b" \n", b"[]", b"{}", b"null"))
    if rng.random() < 0.03:
        content = content.replace("images/a.png", OUTSIDE + ".png").replace("a.png", OUTSIDE + ".png")
    return change_json(content, rng) if file.endswith(".json") else change_token(content, rng)


def _weights_files() -> dict[str, bytes]:
    import safetensors.torch
    import torch

    tensors = {"model.a": torch.ones(2, 3), "model.b": torch.zeros(1, dtype=torch.int64)}

    def saved(content: Any, zipped: bool = True) -> bytes:
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()

    return {
        "plain.safetensors": safetensors.torch.save(tensors),
        "own.safetensors": safetensors.torch.save(tensors, {"detseg": '{"schema": 1, "model": {}, "sha256": "0"}'}),
        "zip.pth": saved({"state_dict": tensors}),
        "old.pth": saved(tensors, zipped=False),
        "odd-keys.pth": saved({0: torch.ones(1)}),
        "odd-nested.pth": saved({"model": {"model": {"a": torch.ones(1)}, "b": [1]}}),
        "odd-list.pth": saved([torch.ones(1)]),
        "odd-mixed.pth": saved({"a": torch.ones(1), None: torch.ones(1)}),
    }
