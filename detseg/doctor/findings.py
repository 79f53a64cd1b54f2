"""One problem found by a check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A problem or a suspicious value.

    Attributes:
        check: the kind of problem, a short phrase that is equal for all findings of one check.
        place: image or instance, to locate it in the source.
        message: the problem, with the value, and the remedy.
        severity: "error" if ``train`` refuses the data for it, else "warning".
    """

    check: str
    place: str
    message: str
    severity: str = "warning"

    def line(self) -> str:
        """``check: message``; the message contains the place."""
        return f"{self.check}: {self.message}"
