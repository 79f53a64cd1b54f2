"""Report what a reader noted and what is too much to pass over: lost objects, and coordinates of another rotation."""

from __future__ import annotations

from detseg.annotations.rotated_coordinates import ROTATED
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import Finding

MANY = 0.01
"""Share of the objects that are lost from which it is no slip of the hand, but probably a mistake of a program."""


def inspect_notes(table: AnnotationTable) -> list[Finding]:
    """Find out whether many objects were dropped, and which images have coordinates of another rotation."""
    return [*_lost(table), *_rotated(table)]


def _lost(table: AnnotationTable) -> list[Finding]:
    lost = table.lost
    if not lost.objects or (lost.objects < MANY * lost.total and not lost.left_out):
        return []
    reasons = {
        kind.partition(": ")[2] or kind: places
        for kind, places in table.notes.examples.items()
        if kind.startswith("box dropped")
    }
    remedy = "correct these objects, or remove them; images that lost all theirs are left out, not learned as empty"
    named = [(place, f"the object is dropped: {reason}") for reason, places in reasons.items() for place in places]
    if not named:
        named = [(table.source, lost.line())]
    return [Finding("warning", "lost object", place, value, remedy) for place, value in named]


def _rotated(table: AnnotationTable) -> list[Finding]:
    return [
        Finding(
            "warning",
            "coordinates of another rotation",
            place,
            kind,
            "rotate the coordinates, or correct the width and height in the annotations to the frame that they are of",
        )
        for kind, places in table.notes.examples.items()
        if kind in ROTATED
        for place in places
    ]
