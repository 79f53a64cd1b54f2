"""Files made to do harm, at every door that takes one. S1 of the scorecard: 25 files, 17 of them with code inside."""

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
from detseg.models import load_weights
from detseg.training.failed_step import replay
from tests.faults.conftest import Runs
from tests.faults.malicious import ARCH, CODE, headed, inside, make, model, ours, part, touched, whole

SECONDS, BYTES = 5.0, 256 << 20
"""That a door may take for a file, and that its memory may grow by."""
ROOT = Path(__file__).resolve().parents[2]


class TooSlow(BaseException):
    """Not an ``OSError``, as ``TimeoutError`` is."""


def called(*arguments: str) -> None:
    """The command line; its message becomes an error, as of a function."""
    text = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(text):
        try:
            code = main([*arguments])
        except SystemExit as error:
            code = int(error.code or 0)
    assert code in (1, 2), f"exit code {code}"
    raise ValueError(text.getvalue())


def doors(path: Path, runs: Runs, folder: Path) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Everything that takes a file: the name that its message should have, and a call with this one."""
    other = path.with_suffix(".pth" if path.suffix == ".safetensors" else ".safetensors")
    shutil.copyfile(path, other)
    for run in ("run", "other"):
        shutil.copytree(runs.straight, folder / run, ignore=shutil.ignore_patterns("*.safetensors", "*.jpg", "*.png"))
    os.link(runs.straight / "best.safetensors", folder / "other" / "best.safetensors")
    shutil.copyfile(path, folder / "run" / "last.safetensors")
    shutil.copyfile(path, folder / "other" / "config.toml")
    images, output = str(runs.images), ("--output", str(folder / "new"))
    options = ("--task", "classify", "--model", ARCH, "--image-size", "40", *output)
    return {
        "weights": (path.name, lambda: load_weights(model(), str(path))),
        "weights of another suffix": (other.name, lambda: load_weights(model(), str(other))),
        "load": (path.name, lambda: load(path)),
        "train --weights": (path.name, lambda: called("train", images, "--weights", str(path), *options)),
        "train --resume": ("last.safetensors", lambda: called("train", "--resume", str(folder / "run"))),
        "train --replay": (path.name, lambda: called("train", "--replay", str(path))),
        "predict": (path.name, lambda: called("predict", str(path), images, *output)),
        "evaluate": (path.name, lambda: called("evaluate", str(path), images, *output)),
        "train --config": (path.name, lambda: called("train", "--config", str(path))),
        "config of a run": ("config.toml", lambda: called("train", "--resume", str(folder / "other"))),
        "config beside weights": ("config.toml", lambda: called("evaluate", str(folder / "other"))),
    }


def memory(name: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) << 10


def refusal(name: str, door: Callable[[], Any]) -> str:
    """What is wrong with how a door refuses a file; nothing if it does it as it should."""

    def stop(*_: object) -> None:
        raise TooSlow(f"more than {SECONDS:g} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    peak, size = memory("VmPeak"), memory("VmSize")
    try:
        door()
        reason = "taken"
    except (ValueError, OSError) as error:
        reason = "" if name in str(error) else f"{name} is not named: {str(error).strip()[-200:]}"
    except BaseException as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = memory("VmPeak") - size if memory("VmPeak") > peak else 0
    return reason if grown < BYTES else f"{reason} {grown >> 20} MiB"


def in_a_child(work: Callable[[], object]) -> int:
    """Do it in a process of its own, with limits that spare the machine; the exit code."""
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


def offer(files: dict[str, Path], runs: Runs, results: Path) -> None:
    """Offer each file to each door; a line for whatever is not as it should be, and for each file that is done."""
    harmless = results.with_suffix(".pth")
    harmless.write_bytes(b"no model")
    for _, door in doors(harmless, runs, results.with_suffix(".run")).values():
        with suppress(ValueError):
            door()  # what is loaded on the way is not to be counted later
    with results.open("w") as lines:
        for name, path in files.items():
            for place, (told, door) in doors(path, runs, path.with_name(f"{name}.run")).items():
                if reason := refusal(told, door):
                    print(f"{name}: {place}: {reason}", file=lines, flush=True)
            print(f"{name}: done", file=lines, flush=True)


def test_25_files_at_11_doors(runs: Runs, tmp_path: Path, tally: Callable[[str, int, int], None]) -> None:
    files = make(tmp_path)
    results = tmp_path / "results"
    assert in_a_child(lambda: offer(files, runs, results)) == 0
    lines = results.read_text().splitlines()
    print("\n".join(line for line in lines if not line.endswith(": done")))
    refused = [name for name in files if [line for line in lines if line.startswith(f"{name}: ")] == [f"{name}: done"]]
    assert touched(tmp_path) == set(), "code ran"
    tally("S1 malicious model file refused, nothing of it run", len(refused), 25)


def test_control_the_code_runs(tmp_path: Path) -> None:
    """A loader that trusts them does what 17 of the files were made for."""
    files = make(tmp_path)

    def trust() -> None:
        for name, (_, trusting) in CODE.items():
            with suppress(Exception):
                trusting(files[name])

    assert in_a_child(trust) == 0
    assert touched(tmp_path) == set(CODE)
    assert len(CODE) == 17


def test_control_a_door_that_takes_it_is_told(tmp_path: Path) -> None:
    """The judge sees a file that is taken, an error of another kind or without a name, and memory."""

    def fail(error: BaseException, size: int = 0) -> None:
        bytearray(size)
        raise error

    def judge() -> None:
        assert refusal("name", lambda: fail(DataError("name: corrupt"))) == ""
        assert refusal("name", lambda: None) == "taken"
        assert refusal("name", lambda: fail(DataError("corrupt"))).startswith("name is not named")
        assert refusal("name", lambda: fail(KeyError("name"))).startswith("KeyError")
        assert refusal("name", lambda: fail(DataError("name"), 2 * BYTES)).endswith(" MiB")

    assert in_a_child(judge) == 0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param((100).to_bytes(8, "little") + b"{}", id="header longer than the file"),
        pytest.param(headed(b"\xff\xfe{]"), id="header not JSON"),
        pytest.param(headed("[]"), id="header a list"),
        pytest.param(headed(f'{{"a": {part(shape="-1")}}}'), id="negative shape"),
        pytest.param(headed(f'{{"a": {part(shape=f"{1 << 62}, {1 << 62}")}}}'), id="shape that overflows"),
        pytest.param(headed(f'{{"a": {part(shape=f"{1 << 38}", end=1 << 40)}}}'), id="offset beyond the end"),
        pytest.param(headed(f'{{"a": {part(dtype="OBJECT")}}}'), id="unknown dtype"),
        pytest.param(headed(f'{{"a": {part()}, "a": {part()}}}'), id="key twice"),
        pytest.param(inside("[]"), id="our header a list"),
        pytest.param(inside("{}"), id="our header empty"),
        pytest.param(inside("9" * 5000), id="our header a long number"),
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


@pytest.mark.parametrize("lie", HEADERS, ids=str)
def test_a_header_that_lies(lie: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(ours(**lie))
    with pytest.raises(DataError, match=r"lie\.safetensors"):
        load(path)


@pytest.mark.parametrize("name", ["ema.evil", "optimizer.evil"])
def test_a_state_that_lies(name: str, runs: Runs, tmp_path: Path) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(ours(tensors=whole() | {name: torch.ones(1)}))
    told, door = doors(path, runs, tmp_path / "runs")["train --resume"]
    with pytest.raises(ValueError, match=told):
        door()


@pytest.mark.parametrize("name", ["batch.evil", "batch.0.evil", "batch.0.image"])
def test_a_batch_that_lies(name: str, tmp_path: Path) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(ours(tensors=whole() | {name: torch.ones(1)}, metrics={"message": "NaN", "seed": 0}))
    with pytest.raises(DataError, match=r"lie\.safetensors"):
        replay(str(path))


RUNNERS = ("eval", "exec", "compile", "__import__", "yaml.unsafe_load", "yaml.full_load", "jit.load", "hub.load")
MODULES = ("joblib", "dill", "cloudpickle", "marshal", "shelve")


def could_run_code(source: str) -> list[str]:
    """What of a source text could run code that is in a file. Of pickle, errors may be named."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [
                item.name for item in node.names if item.name in MODULES or (item.name == "pickle" and item.asname)
            ]
        elif isinstance(node, ast.ImportFrom) and node.module in (*MODULES, "pickle"):
            found.append(node.module)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            found += [node.attr] * (not node.attr.endswith("Error"))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {item.arg: ast.unparse(item.value) for item in node.keywords}
            loads = name == "torch.load" or name.endswith("load_state_dict_from_url")
            unsafe = loads and given.get("weights_only") != "True"
            unsafe |= name == "yaml.load" and given.get("Loader") not in ("yaml.BaseLoader", "yaml.SafeLoader")
            unsafe |= given.get("allow_pickle", "False") != "False" or name.removeprefix("torch.") in RUNNERS
            found += [name] * unsafe
    return found


def test_no_source_could_run_code() -> None:
    """By its calls, whatever texts say; ``test_architecture`` looks for words."""
    for path in [*(ROOT / "detseg").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        assert could_run_code(path.read_text(encoding="utf-8")) == [], path


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


def test_control_it_would_be_found() -> None:
    for line in CAUGHT.strip().splitlines():
        assert len(could_run_code(line)) == 1, line
    assert could_run_code(PASSED) == []
