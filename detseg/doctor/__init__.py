"""Check a data set for problems, and summarize its contents. Reads files and tables; does not load torch."""

from __future__ import annotations

from detseg.doctor.findings import Finding
from detseg.doctor.images import image_values, inspect_images
from detseg.doctor.summary import ClassCount, KeypointCount, Spread, Summary, summary
from detseg.doctor.table import inspect_table

__all__ = [
    "ClassCount",
    "Finding",
    "KeypointCount",
    "Spread",
    "Summary",
    "image_values",
    "inspect_images",
    "inspect_table",
    "summary",
]
