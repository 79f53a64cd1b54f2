"""What a reader repaired or left out: counted by kind, the first few named, said once."""

from __future__ import annotations

from dataclasses import dataclass, field

NAMED = 5


@dataclass
class RepairLog:
    """Counts of repairs. Nothing is clipped, dropped or renumbered without an entry here.

    Attributes:
        counts: how often each kind of repair happened, in order of first appearance.
        examples: the first five places of each kind.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Count one repair of ``kind`` (a short phrase such as "box clipped at the frame") at ``where``."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        named = self.examples.setdefault(kind, [])
        if len(named) < NAMED:
            named.append(where)

    def merge(self, other: RepairLog) -> None:
        """Add the counts and examples of ``other`` to this one."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            named = self.examples.setdefault(kind, [])
            named.extend(other.examples[kind][: NAMED - len(named)])

    def lines(self) -> list[str]:
        """One line a kind: ``3 x box clipped at the frame: a.json annotation 7 (img.jpg); ...``"""
        return [
            f"{count} x {kind}: {'; '.join(self.examples[kind])}{'; ...' if count > len(self.examples[kind]) else ''}"
            for kind, count in self.counts.items()
        ]

    def __bool__(self) -> bool:
        return bool(self.counts)
