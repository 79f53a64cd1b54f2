"""The library reports events to sinks: a terminal prints them, a list collects them, and without sinks it is silent."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.annotations import read_split
from detseg.annotations.from_options import load_table
from detseg.checkpoints.checkpoint import load
from detseg.checkpoints.manager import CheckpointManager
from detseg.cli import main, parse
from detseg.datasets import Dataset, data_loader
from detseg.engine.evaluate import evaluate, validation_loss
from detseg.metrics.coco_metrics import coco_lines
from detseg.options import ConvertConfig, EvaluateConfig, InspectConfig, PredictConfig
from detseg.recipes import convert, inspect, predict
from detseg.recipes import evaluate as evaluate_recipe
from detseg.runtime.reporter import Event, Reporter, TerminalSink, progress, silent, terminal
from detseg.training.fit import fit

PACKAGE = Path(__file__).resolve().parents[2] / "detseg"
ALLOWED = {
    "cli.py": {"print", "stderr"},  # usage and errors
    "runtime/reporter.py": {"print", "tqdm", "stderr"},  # the terminal sink
    "__main__.py": {"print"},
    "synthetic/demo/__main__.py": {"print"},
    # pycocotools prints its progress and has no option to turn that off
    "metrics/pycocotools_reference.py": {"redirect_stdout"},
    "benchmarks/speed/serve.py": {"stdout"},  # that of a server it starts
    "benchmarks/speed/plain_endpoint.py": {"print"},  # a program of its own
    "benchmarks/speed/loader.py": {"redirect_stdout"},
    "benchmarks/speed/evaluate.py": {"redirect_stdout"},
    "benchmarks/speed/index.py": {"redirect_stdout"},
}
"""File -> ways to print that it may use."""


def ways_to_print(source: str) -> set[str]:
    """The ways to print that a source text uses: as a name, an attribute or an import."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.name for alias in node.names}
            names |= {(node.module or "").split(".")[0]} if isinstance(node, ast.ImportFrom) else set()
    return names & {"print", "tqdm", "redirect_stdout", "redirect_stderr", "stdout", "stderr"}


def test_only_the_terminal_sink_prints() -> None:
    sources = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    assert set(ALLOWED) <= set(sources)
    for name, path in sources.items():
        assert ways_to_print(path.read_text(encoding="utf-8")) <= ALLOWED.get(name, set()), name


@pytest.mark.parametrize(
    "source",
    [
        "print('done')",
        "def f():\n    from tqdm import tqdm",
        "import tqdm",
        "from tqdm.auto import trange",
        "import contextlib\ncontextlib.redirect_stdout(None)",
        "lines.each(print)",
        "import sys\nsys.stdout.write(text)",
    ],
)
def test_control_the_check_sees_each_way_to_print(source: str) -> None:
    assert len(ways_to_print(source)) == 1
    assert not ways_to_print("reporter.line('print, tqdm')  # print()")


def test_a_terminal_prints_the_text_of_each_event(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = terminal()
    reporter.line("")
    reporter.lines(["a", "b"])
    reporter.lines([])
    reporter.warning("warning: c")
    reporter.image(Path("curves.png"))
    reporter.epoch({"epoch": 1}, 1, True, "epoch 1/1")
    reporter.metrics("val", {}, "table")
    reporter.done(Path("run"), "wrote run")
    assert list(reporter.progress("xyz", "letters", total=3)) == ["x", "y", "z"]
    assert list(progress("xyz", "letters")) == ["x", "y", "z"]
    printed = capfd.readouterr()
    assert printed.out == "\na\nb\nwarning: c\nepoch 1/1\ntable\nwrote run\n"
    assert printed.err == "", "bars are shown on a terminal only"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars appear on stderr, lines on stdout; a bar is removed at the end, unless it is to stay."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen, lines = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", lines)
    reporter = terminal()
    with reporter.bar("epoch 1", total=4, unit="batch", done=1) as bar:
        bar.update(3, "loss 0.5")
        reporter.line("a line")
    assert lines.getvalue() == "a line\n"
    for text in ("epoch 1:  25%", "1/4", "epoch 1:  75%", "3/4", "batch/s, loss 0.5"):
        assert text in screen.getvalue()
    assert screen.getvalue().endswith("\r"), "cleared"
    list(reporter.progress("xy", "predict", total=2, leave=True))
    assert screen.getvalue().endswith("\n"), "stays"
    assert "predict: 100%" in screen.getvalue()


def test_progress_events() -> None:
    events: list[Event] = []
    reporter = Reporter(events.append)
    for item in reporter.progress("xyz", "letters", total=3):
        if item == "y":
            break
    with pytest.raises(ZeroDivisionError), reporter.bar("none", total=None):
        raise ZeroDivisionError
    values = [(event.values["description"], event.values["done"], event.values["is_open"]) for event in events]
    assert values == [
        ("letters", 0, True),
        ("letters", 1, True),
        ("letters", 1, False),
        ("none", 0, True),
        ("none", 0, False),
    ]


def test_the_error_of_a_sink_is_not_hidden() -> None:
    def full(event: Event) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Reporter(full).line("text")


@pytest.fixture(scope="module")
def printed_run(parts: Path, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs from the command line."""
    folder = tmp_path_factory.mktemp("printed") / "run"
    assert main(["train", str(parts), "--output", str(folder), *small, "--epochs", "2"]) == 0
    return folder


def test_a_silent_run_is_the_same_run(
    printed_run: Path, parts: Path, small: tuple[str, ...], tmp_path: Path, rows: Any, capfd: Any
) -> None:
    config = parse("train", [str(parts), "--output", str(tmp_path / "run"), *small, "--epochs", "2"])
    capfd.readouterr()
    run = fit(config, reporter=silent())
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    for name in ("best.safetensors", "last.safetensors", "metrics.json", "config.toml"):
        content = (run.folder / name).read_bytes().replace(bytes(run.folder), b"run")
        assert content == (printed_run / name).read_bytes().replace(bytes(printed_run), b"run"), name
    assert rows(run.folder) == rows(printed_run)


def test_a_sink_gets_the_events_of_a_run(
    parts: Path, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """The first checkpoint fails, which is a warning; a terminal beside the list prints the same texts."""
    write, calls = CheckpointManager._write, []

    def fail_once(self: CheckpointManager, *args: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            raise OSError("disk full")
        write(self, *args)

    monkeypatch.setattr(CheckpointManager, "_write", fail_once)
    options = ["--epochs", "2", "--linear-probe-epochs", "1", "--test", "0.2", "--split", "stratified"]
    config = parse("train", [str(parts), "--output", str(tmp_path / "run"), *small, *options])
    events: list[Event] = []
    capfd.readouterr()
    run = fit(config, reporter=Reporter(TerminalSink(), events.append))
    printed = capfd.readouterr().out
    assert printed == "".join(f"{event.text}\n" for event in events if event.kind not in ("progress", "image"))

    def of_kind(kind: str) -> list[Event]:
        return [event for event in events if event.kind == kind]

    saved = [json.loads(text) for text in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [event.values["row"] for event in of_kind("epoch")] == saved
    assert len(saved) == 2
    assert of_kind("epoch")[-1].values["epochs"] == 2
    (warning,) = of_kind("warning")
    assert warning.text.startswith("warning: step 2 was not saved (disk full)")
    assert [event.values["first_epoch"] for event in of_kind("phase")] == [1, 2]
    (plan,) = of_kind("plan")
    assert plan.values["options"]["lr"] == run.config.lr
    val, test = of_kind("metrics")
    assert (val.values["split"], test.values["split"]) == ("val", "test")
    assert val.values["metrics"] == run.metrics.to_dict()
    assert {event.values["path"].name for event in of_kind("image")} == {"curves.png", "predictions.jpg"}
    bars = {event.values["description"] for event in of_kind("progress")}
    assert {"epoch 1/1", "epoch 2/2", "evaluate"} <= bars
    assert events[-1].kind == "done"
    assert events[-1].values["folder"] == run.folder


def test_a_sink_gets_the_warning_of_a_corrupt_checkpoint(printed_run: Path, tmp_path: Path, capfd: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(printed_run, run)
    (run / "last.safetensors").write_bytes((run / "last.safetensors").read_bytes()[:-9])
    events: list[Event] = []
    capfd.readouterr()
    fit(parse("train", ["--resume", str(run), "--epochs", "3"]), reporter=Reporter(events.append))
    assert capfd.readouterr().out == ""
    (warning,) = (event for event in events if event.kind == "warning")
    assert warning.text.endswith("renamed to last.safetensors.damaged")


def test_two_processes_report_once(parts: Path, small: tuple[str, ...], tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "detseg", "train", str(parts), *small, "--batch-size", "1"]
    command += ["--output", str(tmp_path / "run"), "--tensorboard"]
    processes = [
        subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    printed = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert printed[0][0].count("epoch 1/1: loss") == 1
    assert f"wrote {tmp_path / 'run'}" in printed[0][0]
    assert printed[1][0] == ""
    files = [path.name.endswith(".results") for path in (tmp_path / "run" / "tensorboard").glob("events.*")]
    assert sorted(files) == [False, True], "the events of one process, and its results"


@pytest.fixture(scope="module")
def val_loader(printed_run: Path, parts: Path) -> Any:
    table = load_table(parse("train", [str(parts)]))
    val = read_split(table, printed_run / "split.json")["val"]
    return data_loader(Dataset(val, load(printed_run).preprocessing, task="segment"), 2)


def test_evaluation_can_be_silent(printed_run: Path, val_loader: Any, capfd: Any) -> None:
    model, events = load(printed_run), list[Event]()
    capfd.readouterr()
    evaluate(model, val_loader, "cpu", reporter=silent())
    validation_loss(model, val_loader, torch.device("cpu"), reporter=silent())
    metrics = evaluate(model, val_loader, "cpu", reporter=Reporter(events.append))
    assert capfd.readouterr() == ("", "")
    assert events[-1].kind == "metrics"
    assert events[-1].values["metrics"] == metrics.to_dict()
    evaluate(model, val_loader, "cpu")
    assert capfd.readouterr().out == "\n".join([*metrics.lines(), *coco_lines(metrics)]) + "\n", (
        "the terminal by default"
    )


def test_recipes_can_be_silent(printed_run: Path, parts: Path, tmp_path: Path, capfd: Any) -> None:
    capfd.readouterr()
    events: list[Event] = []
    reporter = Reporter(events.append)
    evaluate_recipe.evaluate(EvaluateConfig(run=str(printed_run), output=str(tmp_path / "e")), reporter=reporter)
    image = str(next((parts / "val").glob("*.jpg")))
    predict.predict(PredictConfig(run=str(printed_run), images=[image], output=str(tmp_path / "p")), reporter=reporter)
    convert.convert(ConvertConfig(data=str(parts), output=str(tmp_path / "c"), to="voc"), reporter=reporter)
    inspect.inspect(InspectConfig(data=str(parts), output=str(tmp_path / "i")), reporter=reporter)
    assert capfd.readouterr() == ("", "")
    folders = [event.values["folder"] for event in events if event.kind == "done"]
    assert folders == [tmp_path / name for name in "epci"]


def test_json_is_all_that_is_printed(printed_run: Path, parts: Path, tmp_path: Path, capfd: Any) -> None:
    capfd.readouterr()
    assert main(["evaluate", str(printed_run), "--json", "--loss", "--output", str(tmp_path / "e")]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert main(["inspect", str(parts), "--json", "--output", str(tmp_path / "i")]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads((tmp_path / "i" / "summary.json").read_text())


def test_a_terminal_shows_any_file_name_and_some_warnings_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = terminal()
    reporter.warning("warning: a", stderr=True)
    reporter.warning("warning: b")
    assert capsys.readouterr() == ("warning: b\n", "warning: a\n")
    buffer = io.BytesIO()
    ascii_terminal = io.TextIOWrapper(buffer, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_terminal)
    name = os.fsdecode(b"caf\xe9 \xc3\xa9.png")
    reporter.line(name)
    assert buffer.getvalue().decode("ascii").strip() == "caf\\udce9 \\xe9.png"
    with pytest.raises(UnicodeEncodeError):  # control
        print(name, flush=True)
