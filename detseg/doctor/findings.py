"""One problem found by a check, and what mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from detseg.short_text import counted, middle_cut

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From the worst: ``train`` refuses the data; probably a mistake; worth knowing."""

LEAVE_OUT_IMAGE = "the image is left out with its annotations"
JOIN_RECORDS = "the objects are put under the first image id"
REMOVE_OBJECT = "the object is removed"
COMPUTE_AREA = "the area is computed"
BOX_OF_OUTLINE = "the box is computed from the outline"
MERGE_CLASSES = "the classes are merged"
REMOVE_CLASS = "the class is removed from the list"

SHOWN = 3
"""Findings of one kind that one line names."""
LONGEST = 300
"""Characters of a finding in such a line."""


@dataclass(frozen=True)
class Finding:
    """A problem or a suspicious value.

    Attributes:
        severity: "error" if ``train`` refuses the data for it, "warning" if it is probably a mistake, else "note".
        kind: a short phrase that is equal for all findings of one check.
        file: the image, or the annotation file or folder, that it is about.
        value: what is wrong, with the number or name.
        remedy: what to do about it; "" if ``value`` says so.
        instance: the object in the image, such as "annotation 17"; "" for a finding about a whole file.
        fix: what ``inspect --fix`` does about it, one of the constants of this module; "" if it needs a person.
        image: row of the image in the table; -1 for a finding about no single image.
        row: row of the object in the instance columns of the table; -1 for none.
        names: class names that the fix is about; the first one stays when classes are merged.
    """

    severity: Severity
    kind: str
    file: str
    value: str
    remedy: str = ""
    instance: str = ""
    fix: str = ""
    image: int = -1
    row: int = -1
    names: tuple[str, ...] = ()

    @classmethod
    def of_text(cls, severity: Severity, kind: str, file: str, text: str) -> Finding:
        """A finding from a message in the form ``what is wrong; remedy``."""
        value, separator, remedy = text.rpartition("; ")
        if not separator or remedy.count(")") > remedy.count("("):  # a list in parentheses
            value, remedy = text, ""
        return cls(severity, kind, file, value, remedy)

    @property
    def place(self) -> str:
        """The file and, if there is one, the object in it: ``a.jpg, annotation 17``."""
        return ", ".join(filter(None, (self.file, self.instance)))

    @property
    def message(self) -> str:
        """Place, value and remedy in one sentence."""
        text = self.value if self.value.startswith(self.place) else f"{self.place}: {self.value}"
        return f"{text}; {self.remedy}" if self.remedy else text

    def line(self) -> str:
        """``kind: message``."""
        return f"{self.kind}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON-serializable values."""
        return {**asdict(self), "message": self.message}


def kind_lines(findings: Sequence[Finding]) -> list[str]:
    """One line for each kind, the worst first: ``warning: repeated object (7): a.jpg, annotation 2: ...; remedy``.

    A line names the first findings only, so that it is of limited length.
    """
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((SEVERITIES.index(finding.severity), finding.kind), []).append(finding)
    return [_kind_line(group) for _, group in sorted(groups.items(), key=lambda item: item[0][0])]


def _kind_line(group: Sequence[Finding]) -> str:
    first = group[0]
    head = f"{first.severity}: {first.kind}" + (f" ({len(group)})" if len(group) > 1 else "")
    if len(group) == 1:
        return f"{head}: {first.message}"
    same_remedy = all(finding.remedy == first.remedy for finding in group[:SHOWN])
    same_place = all(finding.place == first.place for finding in group)
    shown = [_short(finding, same_place, not same_remedy) for finding in group[:SHOWN]]
    more = f"; and {len(group) - SHOWN} more" if len(group) > SHOWN else ""
    return f"{head}: {'; '.join(shown)}{more}" + (f"; {first.remedy}" if same_remedy and first.remedy else "")


def _short(finding: Finding, same_place: bool, with_remedy: bool) -> str:
    starts_with_place = same_place or finding.value.startswith(finding.place)
    text = finding.value if starts_with_place else f"{finding.place}: {finding.value}"
    return middle_cut(f"{text}; {finding.remedy}" if with_remedy and finding.remedy else text, LONGEST)


def counts_line(findings: Iterable[Finding]) -> str:
    """``1 error, 12 warnings, 2 notes``; "" without findings."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(counted(counts[severity], severity) for severity in SEVERITIES if counts[severity])


def counts_by_kind(findings: Iterable[Finding]) -> dict[str, int]:
    """Kind -> number of findings, in order of first appearance."""
    return dict(Counter(finding.kind for finding in findings))
