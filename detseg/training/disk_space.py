"""Estimate the size of a run folder before anything is trained, and refuse a disk that is too small for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from detseg.errors import DataError
from detseg.models import Model
from detseg.models.create import freeze_as
from detseg.options.plan import Plan
from detseg.runtime.files import free_space, size_text
from detseg.short_text import counted
from detseg.training.result_images import SHEET_IMAGES
from detseg.training.run_data import RunData

HEADER = 130
"""Bytes of a checkpoint's header for each tensor: name, type, shape and position."""

DETECTION = {"detect": 110, "segment": 330, "keypoints": 400}
"""Bytes of a detection in predictions.json."""

ROW = 900
"""Bytes of an epoch in metrics.jsonl."""

TEXTS = 20_000
"""Bytes of config.toml, metrics.json and the other small files."""

IMAGE, PLOTS = 45_000, 120_000
"""Bytes of an image on the sheet of results, and of the plots."""


@dataclass(frozen=True)
class FolderSize:
    """Bytes of the files of a finished run.

    Attributes:
        checkpoint: of one checkpoint to resume from; ``kept`` of them are kept.
        best: of the best weights.
        results: of metrics, predictions and images.
    """

    checkpoint: int
    kept: int
    best: int
    results: int

    @property
    def total(self) -> int:
        """Bytes of the folder at the end."""
        return self.kept * self.checkpoint + self.best + self.results

    @property
    def peak(self) -> int:
        """Most bytes during the run: a new checkpoint is complete before an old one is removed."""
        return self.total + self.checkpoint

    def __str__(self) -> str:
        checkpoints = f"{counted(self.kept, 'checkpoint')} of {size_text(self.checkpoint)}"
        return f"{checkpoints}, best weights {size_text(self.best)}, results {size_text(self.results)}"


def check_space(plan: Plan, model: Model, data: RunData, folder: Path) -> str:
    """Return a line with the space that the run folder needs, besides cached features; "" if the disk's is unknown.

    Raises:
        DataError: the disk has less.
    """
    size, free = expected_size(plan, model, data), free_space(folder)
    if free is None:
        return ""
    existing = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    needed = max(size.peak - existing, size.checkpoint)
    if needed > free:
        raise DataError(
            f"{folder}: the run needs about {size_text(needed)} of disk space ({size}, and a checkpoint while it is "
            f"replaced), but {size_text(free)} are free; free space, choose --output on another disk, or lower "
            "--keep-checkpoints"
        )
    return f"disk: about {size_text(size.total)} in {folder} at the end ({size}); {size_text(free)} are free"


def expected_size(plan: Plan, model: Model, data: RunData) -> FolderSize:
    """Estimate the files of a run. Its frozen parts are those of the last phase afterwards."""
    last = plan.phases[-1]
    freeze_as(model, last.freeze, last.trainable_layers, norm_eval=plan.freezing.norm_eval)
    weights = _bytes(model.state_dict().values())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    moments = 2 if plan.optimizer.optimizer == "adamw" else int(plan.optimizer.momentum > 0)
    checkpoint = weights + moments * _bytes(trained)
    average = 0 if plan.training.ema is None else weights
    kept = plan.checkpoints.keep_checkpoints
    if not plan.measure_epochs:
        kept = min(kept, plan.training.epochs)
    return FolderSize(checkpoint + average, kept, weights, _result_bytes(plan, data))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes + HEADER for tensor in tensors)


def _result_bytes(plan: Plan, data: RunData) -> int:
    """Bytes of predictions, metrics and images; half of the allowed detections are assumed."""
    val, test = (len(data.splits.get(name, ())) for name in ("val", "test"))
    detections = (plan.model.detections_per_image or 100) // 2
    predictions = (val + test) * detections * DETECTION.get(plan.model.task, 0)
    images = min(val, SHEET_IMAGES) * IMAGE + PLOTS
    return predictions + images + plan.training.epochs * ROW + TEXTS
