"""Collect the problems of many files, lines or shapes, so that one message lists them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from detseg.annotations.image_files import NAMED
from detseg.errors import DataError


class Problems:
    """Errors of a data set, in order; the first ``NAMED`` are kept, the others counted."""

    def __init__(self) -> None:
        self._number = 0
        self._first: list[DataError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Collect the DataError of a block instead of raising it; the rest of the block is left out."""
        try:
            yield
        except DataError as error:
            self._number += 1
            if len(self._first) < NAMED:
                self._first.append(error)

    def raise_all(self, source: str) -> None:
        """Raise what was collected; nothing if there was no problem.

        Raises:
            DataError: the only error as it is, or the number of errors and the first of them.
        """
        if self._number == 1:
            raise self._first[0]
        if self._number:
            more = f"; and {self._number - NAMED} more" if self._number > NAMED else ""
            raise DataError(f"{source}: {self._number} problems: {'; '.join(map(str, self._first))}{more}")
