"""Run many inputs in child processes with limits of memory and CPU time; a child that dies is a finding, too."""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.inputs import Inputs

ROOT = Path(__file__).resolve().parents[2]

SECONDS, BYTES = 10, 2 << 30
"""Most CPU time and memory for one input."""


@dataclass(frozen=True)
class Finding:
    """An input with a wrong outcome."""

    number: int
    problem: str


def run_inputs(
    numbers: Sequence[int],
    seed: int = 0,
    kinds: dict[str, int] | None = None,
    *,
    before: Callable[[], None] | None = None,
    stop_at_first: bool = False,
) -> list[Finding]:
    """Run inputs one after the other in a child process, which is replaced if it dies.

    Args:
        before: function of a module that is called in each child first, such as to put back an old fault.
        stop_at_first: return after the first finding.
    """
    findings: list[Finding] = []
    remaining = list(numbers)
    while remaining:
        with tempfile.TemporaryDirectory() as folder:
            done, found, status = _child(remaining, seed, kinds, before, stop_at_first, Path(folder))
        findings += found
        if status:
            died = remaining[done] if done < len(remaining) else remaining[-1]
            name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
            what = f"more than {SECONDS} s" if status == -signal.SIGPROF else f"the process died: {name}"
            findings.append(Finding(died, what))
            done += 1
        remaining = remaining[done:]
        if stop_at_first and findings:
            break
    return findings


def _child(
    numbers: Sequence[int],
    seed: int,
    kinds: dict[str, int] | None,
    before: Callable[[], None] | None,
    stop_at_first: bool,
    folder: Path,
) -> tuple[int, list[Finding], int]:
    """Number of inputs that are done, their findings, and how the child ended (0: in order)."""
    report = folder / "report"
    report.touch()
    arguments = {
        "numbers": list(numbers),
        "seed": seed,
        "kinds": kinds,
        "before": f"tests.{before.__module__.removeprefix('tests.')}:{before.__name__}" if before else "",
        "stop_at_first": stop_at_first,
        "folder": str(folder),
    }
    # a new interpreter: threads of libraries do not survive a fork
    command = [sys.executable, "-c", "from tests.fuzz.runner import work; work()"]
    done = subprocess.run(
        command, input=json.dumps(arguments), text=True, cwd=ROOT, stdout=subprocess.DEVNULL, check=False
    )
    status = done.returncode
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    found = [Finding(numbers[index], problem) for index, problem in lines if problem]
    return len(lines), found, status


def work() -> None:
    """Run the inputs that standard input describes, in this process, and write an outcome of each to ``report``."""
    import torch

    torch.set_num_threads(1)
    arguments = json.loads(sys.stdin.read())
    numbers, stop_at_first, folder = arguments["numbers"], arguments["stop_at_first"], Path(arguments["folder"])
    inputs, report = Inputs(folder / "work", arguments["seed"], arguments["kinds"]), folder / "report"
    if arguments["before"]:
        module, _, name = arguments["before"].partition(":")
        getattr(importlib.import_module(module), name)()
    native = os.open(folder / "native", os.O_RDWR | os.O_CREAT)
    os.dup2(native, 2)
    escapes: list[str] = []
    outside = str(folder / "work" / "outside")

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.fsdecode(arguments[0])
            if "outside" in path or "/etc/passwd" in path:
                real = os.path.realpath(path)
                if real.startswith(outside) or real == "/etc/passwd":
                    escapes.append(real)

    sys.addaudithook(watch)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    limit = _virtual_bytes() + BYTES + (1 << 30)  # a margin: address space is not memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with report.open("a", encoding="utf-8") as lines:
        for index, number in enumerate(numbers):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            problem = inputs.run(number)
            signal.setitimer(signal.ITIMER_PROF, 0)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10
            if not problem and grown > BYTES:
                problem = f"{grown >> 20} MiB"
            if not problem and escapes:
                problem = f"opened {escapes[0]}"
            if not problem and os.fstat(native).st_size:
                problem = f"a line of a library: {os.pread(native, 300, 0).decode('utf-8', 'replace')}"
            os.ftruncate(native, 0)
            escapes.clear()
            lines.write(json.dumps([index, problem]) + "\n")
            lines.flush()
            if problem and stop_at_first:
                return
    shutil.rmtree(folder / "work", ignore_errors=True)


def _virtual_bytes() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmSize:")[2].split()[0]) << 10


def groups(findings: Sequence[Finding]) -> list[tuple[int, Finding]]:
    """Findings that begin alike, the most frequent first: how many, and the first of them."""
    counts = Counter(finding.problem[:30] for finding in findings)
    first = {finding.problem[:30]: finding for finding in reversed(findings)}
    return [(number, first[key]) for key, number in counts.most_common()]
