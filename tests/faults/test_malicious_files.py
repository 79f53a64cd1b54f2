"""Malicious files at every entry point that reads files. S1 of the scorecard: 25 files, 17 of them contain code."""

from __future__ import annotations

import ast
import io
import os
import resource
import shutil
import signal
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoints.checkpoint import load
from detseg.cli import main
from detseg.errors import DataError
from detseg.inference.predictor import Predictor
from detseg.models import load_weights
from detseg.models.weights import safetensors_file
from detseg.models.weights.starting_weights import StartingWeights
from detseg.training.failed_step import replay
from tests.faults.conftest import Runs
from tests.faults.malicious import (
    ARCH,
    CODE,
    make,
    model,
    model_tensors,
    project_checkpoint,
    tensor_entry,
    touched,
    with_header,
    with_project_header,
)

SECONDS, BYTES = 5.0, 256 << 20
"""Maximum time for a file, and maximum growth of memory."""
ROOT = Path(__file__).resolve().parents[2]


class TooSlow(BaseException):
    """The time limit was exceeded. Unlike ``TimeoutError``, this is not an ``OSError``."""


def run_command(*arguments: str) -> None:
    """Run the command line; raise its error message as a ValueError."""
    text = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(text):
        try:
            code = main([*arguments])
        except SystemExit as error:
            code = int(error.code or 0)
    assert code in (1, 2), f"exit code {code}"
    raise ValueError(text.getvalue())


def entry_points(path: Path, runs: Runs, folder: Path) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Everything that reads a file: the file name that its message should contain, and a call with ``path``."""
    other = path.with_suffix(".pth" if path.suffix == ".safetensors" else ".safetensors")
    shutil.copyfile(path, other)
    for run in ("run", "other"):
        shutil.copytree(
            runs.uninterrupted,
            folder / run,
            ignore=shutil.ignore_patterns("*.safetensors", "*.jpg", "*.png", "finished.json"),
        )
    os.link(runs.uninterrupted / "best.safetensors", folder / "other" / "best.safetensors")
    shutil.copyfile(path, folder / "run" / "last.safetensors")
    shutil.copyfile(path, folder / "other" / "config.toml")
    images, output = str(runs.images), ("--output", str(folder / "new"))
    options = ("--task", "classify", "--model", ARCH, "--image-size", "40", *output)
    return {
        "weights": (path.name, lambda: load_weights(model(), str(path))),
        "weights of another suffix": (other.name, lambda: load_weights(model(), str(other))),
        "load": (path.name, lambda: load(path)),
        "train --weights": (path.name, lambda: run_command("train", images, "--weights", str(path), *options)),
        "train --resume": ("last.safetensors", lambda: run_command("train", "--resume", str(folder / "run"))),
        "train --replay": (path.name, lambda: run_command("train", "--replay", str(path))),
        "predict": (path.name, lambda: run_command("predict", str(path), images, *output)),
        "evaluate": (path.name, lambda: run_command("evaluate", str(path), images, *output)),
        "train --config": (path.name, lambda: run_command("train", "--config", str(path))),
        "config of a run": ("config.toml", lambda: run_command("train", "--resume", str(folder / "other"))),
        "config beside weights": ("config.toml", lambda: run_command("evaluate", str(folder / "other"))),
    }


def memory(name: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) << 10


def fault_of(name: str, entry_point: Callable[[], Any]) -> str:
    """What is wrong with the way an entry point rejects a file; empty if nothing."""

    def stop(*_: object) -> None:
        raise TooSlow(f"more than {SECONDS:g} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    peak, size = memory("VmPeak"), memory("VmSize")
    try:
        entry_point()
        reason = "accepted"
    except (ValueError, OSError) as error:
        reason = "" if name in str(error) else f"{name} is not in the message: {str(error).strip()[-200:]}"
    except BaseException as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = memory("VmPeak") - size if memory("VmPeak") > peak else 0
    return reason if grown < BYTES else f"{reason} {grown >> 20} MiB"


def in_a_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a child process with limits on memory and CPU time; return the exit code."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            torch.set_num_threads(1)
            resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + (3 << 30),) * 2)
            resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def try_files(files: dict[str, Path], runs: Runs, results: Path) -> None:
    """Pass each file to each entry point; write a line for each fault, and for each file that is done."""
    harmless = results.with_suffix(".pth")
    harmless.write_bytes(b"no model")
    for _, entry_point in entry_points(harmless, runs, results.with_suffix(".run")).values():
        with suppress(ValueError):
            entry_point()  # so that modules imported here are not counted as memory growth later
    with results.open("w") as lines:
        for name, path in files.items():
            calls = entry_points(path, runs, path.with_name(f"{name}.run"))
            for entry_name, (expected_name, entry_point) in calls.items():
                if reason := fault_of(expected_name, entry_point):
                    print(f"{name}: {entry_name}: {reason}", file=lines, flush=True)
            print(f"{name}: done", file=lines, flush=True)


def test_25_files_at_11_entry_points(runs: Runs, tmp_path: Path, tally: Callable[[str, int, int], None]) -> None:
    files = make(tmp_path)
    results = tmp_path / "results"
    assert in_a_child(lambda: try_files(files, runs, results)) == 0
    lines = results.read_text().splitlines()
    print("\n".join(line for line in lines if not line.endswith(": done")))
    rejected = [name for name in files if [line for line in lines if line.startswith(f"{name}: ")] == [f"{name}: done"]]
    assert touched(tmp_path) == set(), "code was executed"
    tally("S1 malicious model file rejected, no code executed", len(rejected), 25)


READERS_OF_CHECKPOINTS = (
    "weights", "load", "train --weights", "train --resume", "train --replay", "predict", "evaluate", "class transfer",
    "predictor", "pretrain --weights", "starting weights", "own module",
)  # fmt: skip


def flipped_accepted(runs: Runs, folder: Path, content: bytes, bit: int) -> list[str]:
    """Entry points that accept a checkpoint in which one bit is flipped, or that do not say that it is corrupt."""
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    folder.mkdir()
    path = folder / "flipped.safetensors"
    path.write_bytes(flipped)
    calls = {name: call for name, (_, call) in entry_points(path, runs, folder).items()}
    options = ("--model", ARCH, "--image-size", "40", "--output", str(folder / "new"))
    calls["class transfer"] = lambda: run_command(
        "train", str(runs.images), "--weights", str(path), *options, "--class-transfer", "dark=dark"
    )
    calls["predictor"] = lambda: Predictor(path, "cpu")
    calls["pretrain --weights"] = lambda: run_command("pretrain", str(runs.images), "--weights", str(path), *options)
    calls["starting weights"] = lambda: StartingWeights.open(path).classes
    calls["own module"] = lambda: load(path, build=lambda _: model())
    accepted = []
    for name in READERS_OF_CHECKPOINTS:
        try:
            calls[name]()
        except (ValueError, OSError) as error:
            accepted += [] if "corrupt, its checksum does not match" in str(error) else [f"{name}: {error}"]
        except AssertionError:  # exit code 0
            accepted.append(name)
        else:
            accepted.append(name)
    return accepted


@pytest.mark.parametrize("where", ["a weight", "the header", "the schema"])
def test_every_entry_point_checks_the_checksum(
    where: str, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Callable[[str, int, int], None]
) -> None:
    content = (runs.uninterrupted / "last.safetensors").read_bytes()
    offset = {"a weight": len(content) - 5, "the header": content.index(b"epoch"), "the schema": content.index(b": 3,")}
    bit = 8 * (offset[where] + (2 if where == "the schema" else 0)) + 2
    accepted = flipped_accepted(runs, tmp_path / "flipped", content, bit)
    print(accepted)
    if where == "a weight":
        monkeypatch.setattr(safetensors_file, "checksum_matches", lambda *_: True)
        assert "load" in flipped_accepted(runs, tmp_path / "control", content, bit), "control"
    total = len(READERS_OF_CHECKPOINTS)
    tally("S1 checkpoint with a flipped bit rejected at every entry point", total - len(accepted), total)


def test_control_the_code_runs(tmp_path: Path) -> None:
    """An unsafe loader executes the code of 17 files."""
    files = make(tmp_path)

    def load_unsafely() -> None:
        for name, (_, unsafe_load) in CODE.items():
            with suppress(Exception):
                unsafe_load(files[name])

    assert in_a_child(load_unsafely) == 0
    assert touched(tmp_path) == set(CODE)
    assert len(CODE) == 17


def test_control_an_entry_point_that_accepts_a_file_is_reported(tmp_path: Path) -> None:
    """``fault_of`` reports an accepted file, a wrong type of error, a missing file name, and memory growth."""

    def fail(error: BaseException, size: int = 0) -> None:
        bytearray(size)
        raise error

    def check() -> None:
        assert fault_of("name", lambda: fail(DataError("name: corrupt"))) == ""
        assert fault_of("name", lambda: None) == "accepted"
        assert fault_of("name", lambda: fail(DataError("corrupt"))).startswith("name is not in the message")
        assert fault_of("name", lambda: fail(KeyError("name"))).startswith("KeyError")
        assert fault_of("name", lambda: fail(DataError("name"), 2 * BYTES)).endswith(" MiB")

    assert in_a_child(check) == 0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param((100).to_bytes(8, "little") + b"{}", id="header longer than the file"),
        pytest.param(with_header(b"\xff\xfe{]"), id="header not JSON"),
        pytest.param(with_header("[]"), id="header a list"),
        pytest.param(with_header(f'{{"a": {tensor_entry(shape="-1")}}}'), id="negative shape"),
        pytest.param(with_header(f'{{"a": {tensor_entry(shape=f"{1 << 62}, {1 << 62}")}}}'), id="shape that overflows"),
        pytest.param(
            with_header(f'{{"a": {tensor_entry(shape=f"{1 << 38}", end=1 << 40)}}}'), id="offset beyond the end"
        ),
        pytest.param(with_header(f'{{"a": {tensor_entry(dtype="OBJECT")}}}'), id="unknown dtype"),
        pytest.param(with_header(f'{{"a": {tensor_entry()}, "a": {tensor_entry()}}}'), id="key twice"),
        pytest.param(with_project_header("[]"), id="our header a list"),
        pytest.param(with_project_header("{}"), id="our header empty"),
        pytest.param(with_project_header("9" * 5000), id="our header a long number"),
    ],
)
def test_malformed(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "malformed.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"malformed\.safetensors"):
        load(path)
    with pytest.raises(DataError, match=r"malformed\.safetensors"):
        load_weights(model(), str(path))


HEADERS: list[dict[str, Any]] = [
    {"description": {"arch": {}}},
    {"description": {"task": "detect"}},
    {"description": {"class_map": {"names": 3, "category_ids": [[]]}}},
    {"description": {"class_map": {"names": ["one"], "category_ids": [1]}}},
    {"description": {"rois_per_image": None}},
    {"description": {"label_fields": [1]}},
    {"description": {"preprocessing": {"min_size": "40"}}},
    {"description": {"preprocessing": {"min_size": 10**9, "max_size": 0}}},
    {"model": None},
    {"position": []},
    {"position": {"epoch": "0"}},
    {"totals": [1]},
    {"totals": []},
]


@pytest.mark.parametrize("changes", HEADERS, ids=str)
def test_an_invalid_header(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "invalid.safetensors"
    path.write_bytes(project_checkpoint(**changes))
    with pytest.raises(DataError, match=r"invalid\.safetensors"):
        load(path)


@pytest.mark.parametrize("name", ["ema.evil", "optimizer.evil"])
def test_an_invalid_state(name: str, runs: Runs, tmp_path: Path) -> None:
    path = tmp_path / "invalid.safetensors"
    path.write_bytes(project_checkpoint(tensors=model_tensors() | {name: torch.ones(1)}))
    expected_name, entry_point = entry_points(path, runs, tmp_path / "runs")["train --resume"]
    with pytest.raises(ValueError, match=expected_name):
        entry_point()


@pytest.mark.parametrize("name", ["batch.evil", "batch.0.evil", "batch.0.image"])
def test_an_invalid_batch(name: str, tmp_path: Path) -> None:
    path = tmp_path / "invalid.safetensors"
    tensors = model_tensors() | {name: torch.ones(1)}
    path.write_bytes(project_checkpoint(tensors=tensors, metrics={"message": "NaN", "seed": 0}))
    with pytest.raises(DataError, match=r"invalid\.safetensors"):
        replay(str(path))


RUNNERS = ("eval", "exec", "compile", "__import__", "yaml.unsafe_load", "yaml.full_load", "jit.load", "hub.load")
MODULES = ("joblib", "dill", "cloudpickle", "marshal", "shelve")


def unsafe_calls(source: str) -> list[str]:
    """Names in a source text that could execute code from a file. Only the errors of pickle may be used."""
    unsafe_names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            unsafe_names += [
                item.name for item in node.names if item.name in MODULES or (item.name == "pickle" and item.asname)
            ]
        elif isinstance(node, ast.ImportFrom) and node.module in (*MODULES, "pickle"):
            unsafe_names.append(node.module)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            unsafe_names += [node.attr] * (not node.attr.endswith("Error"))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {item.arg: ast.unparse(item.value) for item in node.keywords}
            loads = name == "torch.load" or name.endswith("load_state_dict_from_url")
            unsafe = loads and keywords.get("weights_only") != "True"
            unsafe |= name == "yaml.load" and keywords.get("Loader") not in ("yaml.BaseLoader", "yaml.SafeLoader")
            unsafe |= keywords.get("allow_pickle", "False") != "False" or name.removeprefix("torch.") in RUNNERS
            unsafe_names += [name] * unsafe
    return unsafe_names


def test_no_source_has_unsafe_calls() -> None:
    """Checks calls, not text in strings; ``test_architecture`` searches for words."""
    for path in [*(ROOT / "detseg").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        assert unsafe_calls(path.read_text(encoding="utf-8")) == [], path


CAUGHT = """
import joblib
import pickle as p
from pickle import loads
pickle.load(f)
pickle.Unpickler(f)
torch.load(f)
torch.hub.load_state_dict_from_url(u)
torch.hub.load(u, n)
torch.jit.load(f)
np.load(f, allow_pickle=True)
yaml.load(t)
yaml.load(t, Loader=yaml.Loader)
eval(t)
"""
PASSED = """
'eval(x), exec(x), pickle.load(x)'
import pickle
try: model.eval(); re.compile(x); np.load(f, allow_pickle=False); torch.load(f, weights_only=True)
except pickle.UnpicklingError: yaml.load(t, Loader=yaml.BaseLoader)
"""


def test_control_unsafe_calls_are_detected() -> None:
    for line in CAUGHT.strip().splitlines():
        assert len(unsafe_calls(line)) == 1, line
    assert unsafe_calls(PASSED) == []
