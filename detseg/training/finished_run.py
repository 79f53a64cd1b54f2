"""What a finished run states about its end: ``--resume`` of it computes nothing, and says how to train on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detseg.engine.evaluate import Metrics
from detseg.errors import in_file
from detseg.metrics import ClassificationMetrics, CocoMetrics, FieldMetrics
from detseg.runtime.files import write_json
from detseg.runtime.processes import Processes
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.user_command import user_command
from detseg.training.training_metrics import TrainingMetrics


@dataclass(frozen=True)
class FinishedRun:
    """The content of finished.json, which is written after all other results and removed when training goes on.

    Attributes:
        epochs: number of epochs that were trained.
        planned_epochs: number of epochs of the plan; larger if the run was stopped early.
        best_epoch: that of the best weights; the first epoch is 1.
    """

    epochs: int
    planned_epochs: int
    best_epoch: int

    def write(self, folder: Path) -> None:
        """Write the file of a run."""
        write_json(RunFolder(folder).finished, asdict(self))

    @classmethod
    def read(cls, folder: Path, processes: Processes | None = None) -> FinishedRun | None:
        """Return what the file of a run states, in all processes; None without a file: the run is not finished."""
        path, processes = RunFolder(folder).finished, processes or Processes()
        text = "null"
        if processes.is_main and path.is_file():
            text = path.read_text(encoding="utf-8")
        with in_file(path):
            content = json.loads(processes.broadcast_bytes(text.encode()))
            return None if content is None else cls(**content)

    def reaches(self, epochs: int | None) -> bool:
        """Whether nothing is left to train for a number of epochs."""
        return epochs is None or epochs == self.planned_epochs or epochs <= self.epochs

    def first_line(self, folder: Path) -> str:
        """Return a line that says that the run is finished."""
        early = " (stopped early)" if self.epochs < self.planned_epochs else ""
        return f"{folder} is finished: {self.epochs} of {self.planned_epochs} epochs{early}; nothing was computed"

    def lines(self, folder: Path, first: str) -> list[str]:
        """Return lines that say that the run is finished, with the first line of its results, and what comes next."""
        more = user_command("train", "--resume", folder, "--epochs", str(2 * self.planned_epochs))
        return [
            self.first_line(folder),
            f"best epoch {self.best_epoch}: {first}",
            f"results are in {folder}; train on with a larger number of epochs:",
            f"  {more}",
            *next_lines(folder, has_data=True),
        ]


def next_lines(folder: Path, *, has_data: bool, split: str = "") -> list[str]:
    """Return the commands that use a run.

    Args:
        has_data: whether it was trained on a data set, not on rendered scenes.
        split: of its data that it can be evaluated on; "" for other data.
    """
    evaluate = user_command("evaluate", folder, *(["--split", split] if split else ["DATA"]))
    lines = [user_command("predict", folder, "IMAGES"), *[evaluate] * has_data]
    return [f"{'predict or evaluate' if has_data else 'predict'} with:", *(f"  {line}" for line in lines)]


def resume_command(folder: Path) -> str:
    """Return the command that resumes a run, of ``train`` or ``pretrain``."""
    return user_command("pretrain" if RunFolder(folder).scenes.exists() else "train", "--resume", folder)


def saved_metrics(folder: Path) -> Metrics:
    """Return the metrics of a run's metrics.json, as the run had them."""
    path = RunFolder(folder).metrics
    with in_file(path):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "fields" in content:
            return FieldMetrics.from_dict(content)
        if "confusion" in content:
            return ClassificationMetrics.from_dict(content)
        return TrainingMetrics.from_dict(content) if "epoch" in content else CocoMetrics.from_dict(content)
