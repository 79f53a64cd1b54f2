"""One thing that a check found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is broken or suspicious.

    Attributes:
        check: the kind, a short phrase that is the same for all findings of one check.
        place: image or instance, so that it can be found in the source.
        message: what is wrong, with the value, and what to do.
    """

    check: str
    place: str
    message: str

    def line(self) -> str:
        """``kind: message``; the message names the place."""
        return f"{self.check}: {self.message}"
