"""Run ``benchmark frozen|step|...|all``: speed of one topic, or all, against the baseline, on generated data."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from detseg.benchmarks.speed.interleaved_timing import HEADER, Comparison, table
from detseg.inference.predictor import pick_device
from detseg.options import SpeedConfig
from detseg.reports.table import align
from detseg.runtime.files import write_json, write_text
from detseg.runtime.machine import describe_machine
from detseg.runtime.reporter import Reporter, terminal

TOPICS = ("frozen", "step", "evaluate", "predict", "loader", "video", "index", "inspect", "archives", "serve")
"""Each is a module of this package with a ``compare(device) -> list[Comparison]``."""


def compare(config: SpeedConfig, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Measure one topic, or all; report the table and write speed.json and speed.md in the output folder."""
    device = pick_device(config.device)
    output, machine_name = Path(config.output or "benchmark-speed"), describe_machine(device)
    comparisons: list[Comparison] = []
    for topic in TOPICS if config.what == "all" else (config.what,):
        measure: Callable[..., list[Comparison]] = import_module(f"detseg.benchmarks.speed.{topic}").compare
        comparisons += measure(device)
        write_json(output / "speed.json", {"machine": machine_name, "rows": [row.to_dict() for row in comparisons]})
    rows = table(comparisons)
    notes = [f"{row.name}: {row.note}" for row in comparisons if row.note]
    markdown = [f"| {' | '.join(line)} |" for line in (HEADER, ["---"] * len(HEADER), *rows)]
    write_text(output / "speed.md", "\n".join([*markdown, "", *notes, "", f"Machine: {machine_name}"]) + "\n")
    (reporter or terminal()).lines([*align(rows, HEADER), *notes, machine_name])
    return {"rows": [row.to_dict() for row in comparisons]}
