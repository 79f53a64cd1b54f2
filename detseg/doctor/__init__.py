"""Check a data set for problems, and summarize its contents. Reads files and tables; does not load torch."""

from __future__ import annotations

from detseg.doctor.findings import Finding
from detseg.doctor.images import image_values, inspect_images
from detseg.doctor.mend import Change, mended, reader_changes
from detseg.doctor.summary import ClassCount, KeypointCount, Spread, Summary, summary
from detseg.doctor.table import check_lines, inspect_table, quick_findings

__all__ = [
    "Change",
    "ClassCount",
    "Finding",
    "KeypointCount",
    "Spread",
    "Summary",
    "check_lines",
    "image_values",
    "inspect_images",
    "inspect_table",
    "mended",
    "quick_findings",
    "reader_changes",
    "summary",
]
