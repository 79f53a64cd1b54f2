"""Names of the files in a run folder, and its creation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from detseg.errors import DataError
from detseg.runtime.files import remove_temporary
from detseg.runtime.folder_lock import LOCK, FolderLock

LEFTOVERS = (".last.safetensors.spare", f"{LOCK}.*")
"""Temporary files of the rotation and of the lock, which only a killed process leaves."""


@dataclass(frozen=True)
class RunFolder:
    """The output folder of one training run. Every file name of a run stands here.

    Attributes:
        path: of the folder.
    """

    path: Path

    @classmethod
    def of(cls, path: str | Path) -> RunFolder:
        """The run that a folder, or a checkpoint file in it, belongs to."""
        path = Path(path)
        return cls(path if path.is_dir() else path.parent)

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch, for evaluation and prediction."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The most recent checkpoint, for resuming."""
        return self.checkpoint(0)

    def checkpoint(self, age: int) -> Path:
        """Checkpoint that is ``age`` checkpoints older than the most recent one."""
        return self.path / ("last.safetensors" if age == 0 else f"last-{age}.safetensors")

    @property
    def config(self) -> Path:
        """All options as TOML."""
        return self.path / "config.toml"

    @property
    def scenes(self) -> Path:
        """Options of a pretraining on rendered scenes."""
        return self.path / "scenes.toml"

    @property
    def cut(self) -> Path:
        """The reduction of the number of epochs of a run with a time limit."""
        return self.path / "cut.json"

    @property
    def split(self) -> Path:
        """Which image is in which split."""
        return self.path / "split.json"

    @property
    def metrics_log(self) -> Path:
        """One JSON line per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def metrics(self) -> Path:
        """Metrics of the best epoch."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """Validation predictions of the best epoch, in COCO results format."""
        return self.path / "predictions.json"

    @property
    def curves(self) -> Path:
        """Plot of losses and metrics."""
        return self.path / "curves.png"

    @property
    def result_images(self) -> Path:
        """Validation images with ground truth and predictions."""
        return self.path / "predictions.jpg"

    def confusion(self, name: str = "") -> Path:
        """Plot of a confusion matrix; with several label fields ``name`` is part of the file name."""
        return self.path / (f"confusion-{name}.png" if name else "confusion.png")

    @property
    def card(self) -> Path:
        """The model card, in Markdown."""
        return self.path / "card.md"

    @property
    def finished(self) -> Path:
        """Number of epochs of a run whose results are complete."""
        return self.path / "finished.json"

    @property
    def failed_batch(self) -> Path:
        """The batch whose loss was not finite."""
        return self.path / "not-finite.safetensors"

    @property
    def tensorboard(self) -> Path:
        """Folder of the event files for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def figures(self) -> Path:
        """Folder of the figures that ``--figures`` writes."""
        return self.path / "figures"

    @property
    def weights(self) -> Path:
        """Starting weights made by ``pretrain``."""
        return self.path / "weights.safetensors"

    def evaluation(self, split: str) -> Path:
        """Folder of the results of ``detseg evaluate`` on a split."""
        return self.path / f"evaluate-{split}"

    def check_is_new(self) -> None:
        """Raise DataError if the folder already contains a run."""
        if self.last.exists():
            raise DataError(
                f"{self.path} already contains a run; resume it with --resume {self.path}, or give another --output"
            )


def new_run_folder(output: str | None, base: Path) -> RunFolder:
    """The folder of a new run: ``output``, else ``base``, numbered until it is new and created for this run alone.

    Raises:
        DataError: ``output`` already contains a run.
    """
    if output:
        folder = RunFolder(Path(output))
        folder.check_is_new()
        return folder
    path, number = base, 2
    base.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            path.mkdir()  # of two runs that start together only one succeeds
        except FileExistsError:
            path, number = base.with_name(f"{base.name}-{number}"), number + 1
        else:
            return RunFolder(path)


@contextmanager
def locked(folder: Path, images: str = "") -> Iterator[FolderLock]:
    """Create a folder if it does not exist and lock it for the block; remove it at the end if it is empty.

    Temporary files that killed processes left in it are removed.

    Args:
        images: name of a folder in it that contains only written images, also in folders: they are looked for there
            too.

    Raises:
        DataError: another process uses it.
        OSError: it cannot be created or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FolderLock(folder) as lock:
            for pattern in LEFTOVERS:
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)
            parts = [Path(path) for path, _, _ in os.walk(folder / images)] if images else []
            for part in {folder, *parts}:
                remove_temporary(part)
            yield lock
    finally:
        with suppress(OSError):  # it contains files, or was removed
            folder.rmdir()
