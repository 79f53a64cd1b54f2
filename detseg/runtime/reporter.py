"""Report the progress of a run as events to sinks: a terminal, a server, a notebook, or none.

The library prints nothing itself. Functions that report accept a :class:`Reporter`; the default, :func:`terminal`,
prints lines to stdout and shows the progress on stderr; :func:`silent` shows nothing. A sink is a function that is
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

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Protocol, TextIO, TypeVar

from tqdm import tqdm

from detseg.runtime.run_progress import RunProgress
from detseg.short_text import duration, printable

LINE_SECONDS = 30
"""Without a terminal, the progress of a loop is printed at least this often."""
RUN_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"

Item = TypeVar("Item")

Kind = Literal[
    "line", "warning", "plan", "phase", "progress", "epoch", "metrics", "image", "done",
    "model", "evaluation", "drawing", "features", "weights",
]  # fmt: skip
DETAILS = ("model", "evaluation", "drawing", "features", "weights")
"""Kinds of events that are made only for a reporter that asks for them, because they take time."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    Attributes:
        kind: and the keys of ``values``:

            - "line": information; no values.
            - "warning": a problem that does not stop the run; ``stderr`` if a terminal shows it there.
            - "plan": ``options``, a dict of all options as they were chosen.
            - "phase": ``first_epoch`` and ``epochs``, the last one; the first epoch of a run is 1.
            - "progress": ``description``, ``done``, ``total`` (None if unknown), ``unit``, ``bar`` (a number: several
              bars can be open), ``leave`` (show the bar when it is full), ``is_open`` (False in its last event);
              ``run``, None outside of a run, else a dict of ``bar`` (a number), ``share`` of the run that is done, in
              [0, 1], ``seconds_left`` (None if unknown) and ``bound`` ("", "about", "at least" or "at most").
            - "epoch": ``row``, as in metrics.jsonl, where epochs count from 1; ``epochs``, the number of all epochs;
              ``is_best``.
            - "metrics": ``split`` ("train", "val", "test"; "" if unknown), ``metrics``, as in metrics.json.
            - "image": ``path`` of a written image.
            - "done": ``folder`` of the results.

            Only with ``Reporter(..., details=True)``:

            - "model": ``model``, the network traced by ``torch.jit.trace``, and ``inputs``, its tensors.
            - "evaluation" of the validation split: ``epoch``, ``metrics``, as in metrics.json, and ``pr_curves``, a
              list of :class:`~detseg.pr_curve.PrCurve`.
            - "drawing": ``epoch``, ``name`` and ``image``, uint8 [H, W, 3] RGB.
            - "features" of images or objects: ``epoch``, ``vectors`` float32 [N, D], N ``class_names``, and
              ``thumbnails`` uint8 [N, S, S, 3].
            - "weights": ``epoch``, and ``values``, name of a parameter -> array.
        text: exactly what a terminal shows, without the last line break; a part of the bar for "progress"; "" for an
            image and for details.
    """

    kind: Kind
    text: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


class Sink(Protocol):
    """Receives events, in the thread and in the order in which they happen. Its errors stop the run."""

    def __call__(self, event: Event, /) -> Any: ...


class ProgressBar:
    """A progress bar of a reporter; see :meth:`Reporter.bar`."""

    def __init__(self, reporter: Reporter, values: dict[str, Any], part: str) -> None:
        self._reporter, self._values, self._part = reporter, values | {"bar": id(self), "is_open": True}, part
        self._run = reporter.run
        if self._run is not None:
            self._run.begin(part, self._left)
        self._send("")

    @property
    def _left(self) -> int:
        return (self._values["total"] or 0) - self._values["done"]

    def update(self, done: int | None = None, text: str = "") -> None:
        """Set the number of items that are done, by default one more, and the text beside the bar."""
        before = self._values["done"]
        self._values["done"] = before + 1 if done is None else done
        if self._run is not None:
            self._run.advance(self._part, self._values["done"] - before)
        self._send(text)

    def close(self) -> None:
        if self._run is not None:
            self._run.end(self._part, self._left)
        self._values["is_open"] = False
        self._send("")

    def _send(self, text: str) -> None:
        if self._reporter.sinks:
            run = None if self._run is None else {"bar": id(self._run), **self._run.state()}
            self._reporter.send(Event("progress", text, self._values | {"run": run}))


class Reporter:
    """Sends events to sinks. One method for each kind of event; without sinks they do nothing.

    Attributes:
        details: whether to send the events in ``DETAILS`` and the gradient norms of each epoch, too.
        run: the progress of the whole run, inside of :meth:`whole_run`.
    """

    def __init__(self, *sinks: Sink, details: bool = False) -> None:
        self.sinks, self.details = sinks, details
        self.run: RunProgress | None = None
        self._description = ""

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

    def warning(self, text: str, *, stderr: bool = False) -> None:
        """Report a problem that does not stop the run; a terminal prints it to stdout, or to stderr, where it does not
        disturb programs that read the results."""
        self.send(Event("warning", text, {"stderr": True} if stderr else {}))

    def plan(self, texts: Sequence[str], options: Mapping[str, Any]) -> None:
        """Report the options of a run; ``texts``: those that were chosen automatically, with reasons."""
        self.send(Event("plan", "\n".join(texts), {"options": dict(options)}))

    def phase(self, text: str, first_epoch: int, epochs: int) -> None:
        """Report the start of a phase of a run, with its first and its last epoch; the first of a run is 1."""
        self.send(Event("phase", text, {"first_epoch": first_epoch, "epochs": epochs}))

    def epoch(self, row: Mapping[str, Any], epochs: int, is_best: bool, text: str) -> None:
        """Report a finished epoch: its row of metrics.jsonl, and its line for a terminal."""
        self.send(Event("epoch", text, {"row": dict(row), "epochs": epochs, "is_best": is_best}))

    def metrics(self, split: str, metrics: Mapping[str, Any], text: str) -> None:
        """Report the result of an evaluation: as in metrics.json, and as text for a terminal."""
        self.send(Event("metrics", text, {"split": split, "metrics": dict(metrics)}))

    def image(self, path: Path) -> None:
        """Report an image file; a terminal shows nothing."""
        self.send(Event("image", "", {"path": path}))

    def done(self, folder: Path, text: str) -> None:
        """Report that the results are complete, and their folder."""
        self.send(Event("done", text, {"folder": folder}))

    def detail(self, kind: Kind, **values: Any) -> None:
        """Report one of the kinds in ``DETAILS``; a terminal shows nothing."""
        self.send(Event(kind, "", values))

    def with_sink(self, sink: Sink) -> Reporter:
        """Return a reporter to the same sinks and one more, which gets the details."""
        return Reporter(*self.sinks, sink, details=True)

    def described(self, description: str) -> Reporter:
        """Return a reporter to the same sinks whose bars have this description: for measurements, which run loops that
        have a description of their own."""
        reporter = Reporter(*self.sinks, details=self.details)
        reporter.run, reporter._description = self.run, description
        return reporter

    @contextmanager
    def whole_run(self, *, may_stop_early: bool = False) -> Iterator[RunProgress]:
        """In a ``with`` block all bars are parts of one run, which a terminal shows as one bar with the time left."""
        run = self.run = RunProgress(may_stop_early=may_stop_early)
        try:
            yield run
        finally:
            self.run = None
            ends = {"description": "run", "done": 1, "total": 1, "unit": "run", "leave": False, "run": None}
            self.send(Event("progress", "", ends | {"bar": id(run), "is_open": False}))

    @contextmanager
    def bar(
        self,
        description: str,
        *,
        total: int | None,
        unit: str = "item",
        done: int = 0,
        leave: bool = False,
        part: str = "",
    ) -> Iterator[ProgressBar]:
        """Show a progress bar in a ``with`` block.

        Args:
            leave: it stays on the terminal at the end.
            part: of the run, whose bars have the same time per unit; the description by default.
        """
        description = self._description or description
        values = {"description": description, "done": done, "total": total, "unit": unit, "leave": leave}
        progress_bar = ProgressBar(self, values, part or description)
        try:
            yield progress_bar
        finally:
            progress_bar.close()

    def progress(
        self, items: Iterable[Item], description: str, *, total: int | None, unit: str = "item", leave: bool = False
    ) -> Iterator[Item]:
        """Yield the items and show a progress bar."""
        with self.bar(description, total=total, unit=unit, leave=leave) as progress_bar:
            for item in items:
                yield item
                progress_bar.update()


class TerminalSink:
    """Prints the text of every event to stdout, of some warnings to stderr. Progress appears on stderr: on a terminal
    as bars below the text, of a run as one bar with the time left; else as a line whenever nothing was printed for
    ``LINE_SECONDS``."""

    def __init__(self) -> None:
        self._bars: dict[int, tqdm[Any]] = {}
        self._starts: dict[int, tuple[float, int]] = {}
        self._printed = self._called = monotonic()

    def __call__(self, event: Event) -> None:
        if event.kind == "progress":
            (self._show_bar if sys.stderr is not None and sys.stderr.isatty() else self._print_progress)(event)
            self._called = monotonic()
        elif event.kind != "image" and event.kind not in DETAILS:
            with tqdm.external_write_mode():  # hides the bars while the line is printed
                _print(printable(event.text), sys.stderr if event.values.get("stderr") else None)
            self._printed = self._called = monotonic()

    def _show_bar(self, event: Event) -> None:
        values, run = event.values, event.values["run"]
        if run is not None:
            self._show_run(event, run)
            return
        bar = self._bars.get(values["bar"])
        if not values["is_open"]:
            if bar is not None:
                self._bars.pop(values["bar"]).close()
        elif bar is None:
            self._bars[values["bar"]] = tqdm(
                desc=values["description"],
                total=values["total"],
                initial=values["done"],
                unit=values["unit"],
                leave=values["leave"],
            )
        else:
            if event.text:
                bar.set_postfix_str(event.text, refresh=False)
            bar.update(values["done"] - bar.n)

    def _show_run(self, event: Event, run: Mapping[str, Any]) -> None:
        bar = self._bars.get(run["bar"])
        if bar is None:
            # miniters: drawn after each mininterval, also if the share has not changed
            bar = tqdm(total=1.0, bar_format=RUN_BAR, leave=False, miniters=0)
            self._bars[run["bar"]] = bar
        bar.set_description_str(_position_text(event.values), refresh=False)
        bar.set_postfix_str(", ".join(filter(None, [event.text, _left_text(run)])), refresh=False)
        bar.update(run["share"] - bar.n)

    def _print_progress(self, event: Event) -> None:
        """Print a line if it is due, or would be before the next event, which is expected after the same time."""
        values, now = event.values, monotonic()
        if not values["is_open"]:
            self._starts.pop(values["bar"], None)
            return
        start, first = self._starts.setdefault(values["bar"], (now, values["done"]))
        if now - self._printed + (now - self._called) < LINE_SECONDS:
            return
        left = values["run"]
        if left is None:
            done, total = values["done"] - first, values["total"]
            seconds = (now - start) / done * (total - values["done"]) if done and total else None
            left = {"seconds_left": seconds, "bound": ""}
        print(
            ", ".join(filter(None, [_position_text(values), event.text, _left_text(left)])), file=sys.stderr, flush=True
        )
        self._printed = now


def _print(text: str, file: TextIO | None) -> None:
    """Print a text; characters that the terminal cannot show, such as bytes of a file name, are escaped."""
    try:
        print(text, file=file, flush=True)
    except UnicodeEncodeError:
        print(text.encode("ascii", "backslashreplace").decode(), file=file, flush=True)


def _position_text(values: Mapping[str, Any]) -> str:
    """Return where a loop is: ``epoch 3/10, batch 40/120``."""
    total = "" if values["total"] is None else f"/{values['total']}"
    return f"{values['description']}, {values['unit']} {values['done']}{total}"


def _left_text(left: Mapping[str, Any]) -> str:
    """Return ``at most 12 min left``; "" if the time is unknown."""
    return "" if left["seconds_left"] is None else f"{left['bound']} {duration(left['seconds_left'])} left".lstrip()


def terminal() -> Reporter:
    """Return a reporter that prints to the terminal: the default of all functions that report."""
    return Reporter(TerminalSink())


def silent() -> Reporter:
    """Return a reporter that shows nothing. Readers of data still show their progress on stderr if they are slow."""
    return Reporter()


def progress(
    items: Iterable[Item], description: str, *, total: int | None = None, unit: str = "item", leave: bool = True
) -> Iterator[Item]:
    """Yield the items and show the progress on stderr: for readers, which have no reporter."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    return terminal().progress(items, description, total=total, unit=unit, leave=leave)
