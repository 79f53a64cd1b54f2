"""The images of a run: tables, or anything else that gives the loaders and the ground truth of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from detseg.annotations import AnnotationTable, write_split
from detseg.annotations.fingerprint import Fingerprint, fingerprint
from detseg.engine.evaluator import AnyEvaluator, make_evaluator
from detseg.models import Model
from detseg.options.plan import Phase, Plan
from detseg.runtime.processes import Processes
from detseg.runtime.reporter import Reporter
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.signals import StopRequest
from detseg.training.loaders import DataModule
from detseg.training.time_budget import Budget, fit_to_minutes


@dataclass(frozen=True)
class RunContext:
    """What a run gets from its process: the other processes, requests to stop, and the reporter of the main one.

    Attributes:
        started: when it began, in seconds of :func:`time.monotonic`.
    """

    processes: Processes
    stop_request: StopRequest
    reporter: Reporter
    started: float = field(default_factory=monotonic)


@dataclass(frozen=True)
class Loaders:
    """Batches of a phase: for training, and for evaluation (None without validation images).

    Attributes:
        budget: of a run with a time limit whose epochs were measured now.
    """

    train: Any
    val: Any
    budget: Budget | None = None


class RunData(Protocol):
    """What a run needs to know about its images.

    Attributes:
        splits: the tables "train", "val" and "test", as far as there are any; empty if the images are rendered.
        train_images: training images of an epoch.
        has_val: whether there are validation images.
        fingerprint: of everything that is learned from, by which a resumed run knows its data.
    """

    @property
    def splits(self) -> Mapping[str, AnnotationTable]: ...

    @property
    def train_images(self) -> int: ...

    @property
    def has_val(self) -> bool: ...

    @property
    def fingerprint(self) -> Fingerprint: ...

    def loaders(
        self, plan: Plan, phase: Phase, model: Model, folder: Path, context: RunContext
    ) -> tuple[Plan, Loaders]:
        """Return the loaders of a phase, and the plan, whose epochs are measured now if they follow from minutes."""
        ...

    def evaluator(self, plan: Plan, model: Model) -> AnyEvaluator | None:
        """Return an evaluator with the ground truth of the validation images; None without any."""
        ...

    def write(self, plan: Plan, folder: Path) -> None:
        """Write to the run folder what is needed to find the same images again."""
        ...


class TableData:
    """Tables as the data of a run; the attributes are those of :class:`RunData`."""

    def __init__(self, splits: Mapping[str, AnnotationTable]) -> None:
        self.splits = splits
        self.train, self.val = splits["train"], splits.get("val")
        self.train_images, self.has_val = len(self.train), self.val is not None

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return fingerprint(self.splits)

    def loaders(
        self, plan: Plan, phase: Phase, model: Model, folder: Path, context: RunContext
    ) -> tuple[Plan, Loaders]:
        """Return the loaders of a phase; the features of its frozen parts are computed first."""
        module = DataModule(plan, phase, model, context.processes, folder, context.reporter)
        module.prepare(self.train, context.stop_request)
        budget: Budget | None = None
        if plan.measure_epochs:
            val = self.train.subset([]) if self.val is None else self.val
            plan, budget, lines = fit_to_minutes(
                plan, model, self.train, val, len(self.splits.get("test", ())), module, context.started,
                context.stop_request,
            )  # fmt: skip
            context.reporter.plan(lines, plan.values())
        val_loader = None if self.val is None else module.val_loader(self.val)
        return plan, Loaders(module.train_loader(self.train), val_loader, budget)

    def evaluator(self, plan: Plan, model: Model) -> AnyEvaluator | None:
        """Return an evaluator of the validation split."""
        return None if self.val is None else make_evaluator(self.val, plan.model.task, model.preprocessing)

    def write(self, plan: Plan, folder: Path) -> None:
        """Write split.json."""
        write_split(dict(self.splits), RunFolder(folder).split, seed=plan.run.seed, how=plan.split.split)
