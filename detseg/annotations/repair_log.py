"""Log what a reader repaired or skipped: counts and the first examples of each kind, reported once."""

from __future__ import annotations

from dataclasses import dataclass, field

NAMED = 5


@dataclass
class RepairLog:
    """Counts of repairs. Nothing is clipped, dropped or renumbered without an entry here.

    Attributes:
        counts: number of repairs of each kind, in order of first appearance.
        examples: the first five locations of each kind.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Count one repair of ``kind`` (a short phrase such as "box clipped to the image") at ``where``."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < NAMED:
            examples.append(where)

    def merge(self, other: RepairLog) -> None:
        """Add the counts and examples of ``other`` to this one."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            examples = self.examples.setdefault(kind, [])
            examples.extend(other.examples[kind][: NAMED - len(examples)])

    def lines(self) -> list[str]:
        """One line per kind: ``3 x box clipped to the image: a.json annotation 7 (img.jpg); ...``"""
        return [
            f"{count} x {kind}: {'; '.join(self.examples[kind])}{'; ...' if count > len(self.examples[kind]) else ''}"
            for kind, count in self.counts.items()
        ]

    def __bool__(self) -> bool:
        return bool(self.counts)
