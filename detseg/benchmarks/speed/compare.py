"""``benchmark frozen|step|evaluate|predict|loader|index|all``: speed against the baseline, on what is made here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from detseg.benchmarks.speed.interleaved_timing import HEADER, Comparison, table
from detseg.errors import DataError
from detseg.inference.predictor import pick_device
from detseg.options import BenchmarkConfig
from detseg.reports.table import align
from detseg.runtime.files import write_json, write_text
from detseg.runtime.machine import machine

TOPICS = ("frozen", "step", "evaluate", "predict", "loader", "index")
"""Each is a module beside this one with a ``compare(device) -> list[Comparison]``."""


def compare(config: BenchmarkConfig) -> dict[str, Any]:
    """Measure one topic, or all; print the table and write speed.json and speed.md in the output folder.

    Raises:
        DataError: data are given; these comparisons make their own.
    """
    if config.data:
        raise DataError(f"benchmark {config.what} {config.data}: it makes its own data; leave it out")
    device = pick_device(config.device)
    output, where = Path(config.output or "benchmark-speed"), machine(device)
    found: list[Comparison] = []
    for topic in TOPICS if config.what == "all" else (config.what,):
        measure: Callable[..., list[Comparison]] = import_module(f"detseg.benchmarks.speed.{topic}").compare
        found += measure(device)
        write_json(output / "speed.json", {"machine": where, "rows": [one.to_dict() for one in found]})
    rows = table(found)
    notes = [f"{one.name}: {one.note}" for one in found if one.note]
    markdown = [f"| {' | '.join(line)} |" for line in (HEADER, ["---"] * len(HEADER), *rows)]
    write_text(output / "speed.md", "\n".join([*markdown, "", *notes, "", f"Machine: {where}"]) + "\n")
    print("\n".join([*align(rows, HEADER), *notes, where]))
    return {"rows": [one.to_dict() for one in found]}
