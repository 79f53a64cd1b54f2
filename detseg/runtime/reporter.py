"""Report the progress of a run as events to sinks: a terminal, a server, a notebook, or none.

The library prints nothing itself. Functions that report accept a :class:`Reporter`; the default, :func:`terminal`,
prints lines to stdout and shows progress bars on stderr; :func:`silent` shows nothing. A sink is a function that is
called with each :class:`Event`, so a list can collect them, and a class can send them to a server::

    class Scores:
        def __init__(self, url: str) -> None:
            self.url = url

        def __call__(self, event: Event) -> None:
            if event.kind == "epoch":
                requests.post(self.url, json=event.values["row"])

    events = []
    fit(config, reporter=Reporter(TerminalSink(), events.append, Scores("http://localhost:8000")))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

Kind = Literal["line", "warning", "plan", "phase", "progress", "epoch", "metrics", "image", "done"]


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    Attributes:
        kind: and the keys of ``values``:

            - "line": information; no values.
            - "warning": a problem that does not stop the run; no values.
            - "plan": ``options``, a dict of all options as they were chosen.
            - "phase": ``first_epoch`` and ``epochs``, the last one plus 1, counted from the start of the run.
            - "progress": ``description``, ``done``, ``total`` (None if unknown), ``unit``, ``bar`` (a number: several
              bars can be open), ``leave`` (show the bar when it is full), ``is_open`` (False in its last event).
            - "epoch": ``row``, as in metrics.jsonl; ``epochs``, the number of all epochs; ``is_best``.
            - "metrics": ``split`` ("train", "val", "test"; "" if unknown), ``metrics``, as in metrics.json.
            - "image": ``path`` of a written image.
            - "done": ``folder`` of the results.
        text: exactly what a terminal shows, without the last line break; a part of the bar for "progress"; "" for an
            image.
        flush: a terminal shows it at once, even if its output is a file.
    """

    kind: Kind
    text: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    flush: bool = False


class Sink(Protocol):
    """Receives events, in the thread and in the order in which they happen. Its errors stop the run."""

    def __call__(self, event: Event, /) -> Any: ...


class ProgressBar:
    """A progress bar of a reporter; see :meth:`Reporter.bar`."""

    def __init__(self, reporter: Reporter, values: dict[str, Any]) -> None:
        self._reporter, self._values = reporter, values | {"bar": id(self), "is_open": True}
        self._send("")

    def update(self, done: int | None = None, text: str = "") -> None:
        """Set the number of items that are done, by default one more, and the text beside the bar."""
        self._values["done"] = self._values["done"] + 1 if done is None else done
        self._send(text)

    def close(self) -> None:
        self._values["is_open"] = False
        self._send("")

    def _send(self, text: str) -> None:
        if self._reporter.sinks:
            self._reporter.send(Event("progress", text, dict(self._values)))


class Reporter:
    """Sends events to sinks. One method for each kind of event; without sinks they do nothing."""

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = sinks

    def send(self, event: Event) -> None:
        """Call every sink with the event."""
        for sink in self.sinks:
            sink(event)

    def line(self, text: str) -> None:
        """Report a line of information."""
        self.send(Event("line", text))

    def lines(self, texts: Sequence[str]) -> None:
        """Report several lines as one event; no event without lines."""
        if texts:
            self.send(Event("line", "\n".join(texts)))

    def warning(self, text: str) -> None:
        """Report a problem that does not stop the run."""
        self.send(Event("warning", text))

    def plan(self, texts: Sequence[str], options: Mapping[str, Any]) -> None:
        """Report the options of a run; ``texts``: those that were chosen automatically, with reasons."""
        self.send(Event("plan", "\n".join(texts), {"options": dict(options)}))

    def phase(self, text: str, first_epoch: int, epochs: int) -> None:
        """Report the start of a phase of a run, with its first epoch and the end of its last."""
        self.send(Event("phase", text, {"first_epoch": first_epoch, "epochs": epochs}))

    def epoch(self, row: Mapping[str, Any], epochs: int, is_best: bool, text: str, *, flush: bool = False) -> None:
        """Report a finished epoch: its row of metrics.jsonl, and its line for a terminal."""
        self.send(Event("epoch", text, {"row": dict(row), "epochs": epochs, "is_best": is_best}, flush))

    def metrics(self, split: str, metrics: Mapping[str, Any], text: str) -> None:
        """Report the result of an evaluation: as in metrics.json, and as text for a terminal."""
        self.send(Event("metrics", text, {"split": split, "metrics": dict(metrics)}))

    def image(self, path: Path) -> None:
        """Report an image file; a terminal shows nothing."""
        self.send(Event("image", "", {"path": path}))

    def done(self, folder: Path, text: str) -> None:
        """Report that the results are complete, and their folder."""
        self.send(Event("done", text, {"folder": folder}))

    @contextmanager
    def bar(
        self, description: str, *, total: int | None, unit: str = "it", done: int = 0, leave: bool = False
    ) -> Iterator[ProgressBar]:
        """Show a progress bar in a ``with`` block; ``leave``: it stays on the terminal at the end."""
        values = {"description": description, "done": done, "total": total, "unit": unit, "leave": leave}
        progress_bar = ProgressBar(self, values)
        try:
            yield progress_bar
        finally:
            progress_bar.close()

    def progress(
        self, items: Iterable[Item], description: str, *, total: int, unit: str = "it", leave: bool = False
    ) -> Iterator[Item]:
        """Yield the items and show a progress bar."""
        with self.bar(description, total=total, unit=unit, leave=leave) as progress_bar:
            for item in items:
                yield item
                progress_bar.update()


class TerminalSink:
    """Prints the text of every event to stdout, above the progress bars, which appear on stderr if it is a terminal."""

    def __init__(self) -> None:
        self._bars: dict[int, tqdm[Any]] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            self._show_progress(event)
        elif event.kind != "image":
            with tqdm.external_write_mode():  # hides the bars while the line is printed
                print(event.text, flush=event.flush)

    def _show_progress(self, event: Event) -> None:
        values = event.values
        bar = self._bars.get(values["bar"])
        if bar is None:
            self._bars[values["bar"]] = tqdm(
                desc=values["description"],
                total=values["total"],
                initial=values["done"],
                unit=values["unit"],
                leave=values["leave"],
                disable=None,  # only on a terminal
            )
        elif values["is_open"]:
            if event.text:
                bar.set_postfix_str(event.text, refresh=False)
            bar.update(values["done"] - bar.n)
        else:
            self._bars.pop(values["bar"]).close()


def terminal() -> Reporter:
    """Return a reporter that prints to the terminal: the default of all functions that report."""
    return Reporter(TerminalSink())


def silent() -> Reporter:
    """Return a reporter that shows nothing. Readers of data still show progress bars on stderr if it is a terminal."""
    return Reporter()


def progress(
    items: Iterable[Item], description: str, *, total: int | None = None, unit: str = "it", leave: bool = True
) -> tqdm[Item]:
    """Return the items with a progress bar on stderr, if it is a terminal: for readers, which have no reporter."""
    return tqdm(items, desc=description, total=total, unit=unit, disable=None, leave=leave)
