"""Write the events of a run for TensorBoard. The package tensorboard is optional and only imported when it is used."""

from __future__ import annotations

import importlib.util
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.pr_curve import RECALLS, PrCurve
from detseg.reports.sheet import write_image
from detseg.runtime.files import write_text
from detseg.runtime.reporter import Event

RESULTS = ".results"
"""End of the name of the event file with the options and the results of a run, which is replaced as a whole."""
_SPEED = ("seconds", "images_per_second")
_NO_SCALARS = ("epoch", "first_epoch")
_NO_HYPERPARAMETERS = (
    *("output", "resume", "replay", "tensorboard", "tensorboard_weights", "figures", "check", "coco_lines"),
    *("decoded_limit", "cache_dir", "cache_limit", "checkpoint_every", "keep_checkpoints"),
)
"""Options that change nothing that is learned."""


def check_installed() -> None:
    """Raise DataError if the package tensorboard is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise DataError("--tensorboard: the package tensorboard is not installed; pip install 'detseg[tensorboard]'")


class TensorBoardSink:
    """Writes to one folder what TensorBoard shows of a run; epochs are its steps.

    Scalars of every epoch; of every evaluation the scores of each class, PR curves and drawings; the graph of the
    network, features in the projector, histograms of weights, and the options of the run with its results. A PR curve
    has COCO's 101 recall thresholds as its points, so the threshold that TensorBoard shows with a point is 1 - recall,
    not a score.

    Args:
        folder: is created; the event files of a resumed run are added to those that it has.
        first_epoch: of this process, from 1. Events of this epoch and of later ones, which the run wrote before it was
            resumed, are not shown.
        options: of the run, until an event has others.

    Raises:
        DataError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, *, first_epoch: int = 1, options: Mapping[str, Any] | None = None) -> None:
        check_installed()
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self._options = folder, dict(options or {})
        self._has_graph = any(folder.glob("events.*"))
        self._results: dict[str, float] = {}
        self._tags = _Tags()
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch if self._has_graph else None)

    def __call__(self, event: Event) -> None:
        values = event.values
        match event.kind:
            case "plan":
                self._options = dict(values["options"])
            case "epoch":
                self._scalars(_scalars_of_row(values["row"]), values["row"]["epoch"])
            case "evaluation":
                self._scalars(self._scores_by_class(values["metrics"]), values["epoch"])
                self._pr_curves(values["pr_curves"], values["epoch"])
            case "drawing":
                self._writer.add_image(values["name"], values["image"], values["epoch"], dataformats="HWC")
            case "weights":
                for name, array in values["values"].items():
                    self._writer.add_histogram(f"weights/{name}", array, values["epoch"])
            case "model" if not self._has_graph:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that the network is traced already
                    self._writer.add_graph(values["model"], values["inputs"], use_strict_trace=False)
            case "features":
                write_projector(self.folder, values["vectors"], values["class_names"], values["thumbnails"])
            case "metrics":
                self._results |= {f"best/{values['split']}_{name}": x for name, x in _flat(values["metrics"]).items()}
        if event.kind in ("epoch", "evaluation", "model"):
            self._writer.flush()

    def close(self) -> None:
        """Write the options with the results, if the run has any, and close the files."""
        self._writer.close()
        if not self._results:
            return
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        for path in self.folder.glob(f"events.*{RESULTS}"):
            path.unlink()  # TensorBoard shows the first options of a folder, which may be those before a resume
        writer = SummaryWriter(str(self.folder), filename_suffix=RESULTS)
        options = {name: _plain(x) for name, x in self._options.items() if name not in _NO_HYPERPARAMETERS}
        for summary in hparams(options, self._results):
            writer._get_file_writer().add_summary(summary)
        for tag, value in self._results.items():
            writer.add_scalar(tag, value, 0)
        writer.close()

    def _scalars(self, scalars: Mapping[str, float], epoch: int) -> None:
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, epoch)

    def _scores_by_class(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        return {
            self._tags.of(f"{kind}{name}_per_class", class_name): value
            for kind, class_name, scores in _class_scores(metrics)
            for name, value in scores.items()
            if name in ("AP", "AP50", "accuracy") and _is_number(value)
        }

    def _pr_curves(self, curves: Sequence[PrCurve], epoch: int) -> None:
        for curve in curves:
            tag = self._tags.of(f"pr_curves/{curve.title}", curve.class_name)
            hits, false_alarms = _counts(curve)
            rows = (hits, false_alarms, np.zeros_like(hits), curve.positives - hits, curve.precision, RECALLS)
            tp, fp, tn, fn, precision, recall = (row[::-1] for row in rows)  # thresholds ascend
            self._writer.add_pr_curve_raw(tag, tp, fp, tn, fn, precision, recall, epoch, num_thresholds=len(recall))


class _Tags:
    """Tags of class names: TensorBoard's groups end at a slash, and the tags of two classes must differ."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def of(self, group: str, class_name: str) -> str:
        name = re.sub(r"[/\s]+", "_", class_name)
        tag = base = f"{group}/{name}"
        number = 2
        while self._names.setdefault(tag, class_name) != class_name:
            tag, number = f"{base}_{number}", number + 1
        return tag


def _counts(curve: PrCurve) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the number of hits and of false alarms, float64 [101] each, where the precision of a point is reached;
    0 where the recall is not reached."""
    precision, reached = curve.precision, curve.precision > 0
    last = np.searchsorted(-precision, -precision, side="right") - 1  # the precision is that of the largest recall
    hits = np.where(reached, np.maximum(np.ceil(RECALLS[last] * curve.positives - 1e-9), 1), 0)
    return hits, np.where(reached, np.round(hits / np.where(reached, precision, 1)) - hits, 0)


def write_projector(
    folder: Path, vectors: npt.NDArray[np.float32], class_names: Sequence[str], thumbnails: npt.NDArray[np.uint8]
) -> None:
    """Write features for TensorBoard's projector: vectors, classes and a sprite of thumbnails, and its configuration.

    Args:
        vectors: float32 [N, D].
        class_names: N names.
        thumbnails: uint8 [N, S, S, 3].
    """
    side = thumbnails.shape[1]
    columns = max(math.ceil(math.sqrt(len(thumbnails))), 1)
    sprite = np.full((columns * side, columns * side, 3), 255, np.uint8)
    for number, thumbnail in enumerate(thumbnails):
        top, left = side * (number // columns), side * (number % columns)
        sprite[top : top + side, left : left + side] = thumbnail
    (folder / "projector").mkdir(parents=True, exist_ok=True)
    rows = ("\t".join(f"{value:.6g}" for value in vector) for vector in vectors.tolist())
    write_text(folder / "projector" / "vectors.tsv", "".join(f"{row}\n" for row in rows))
    names = (re.sub(r"\s+", " ", name) for name in class_names)
    write_text(folder / "projector" / "classes.tsv", "".join(f"{name}\n" for name in names))
    write_image(folder / "projector" / "thumbnails.png", sprite)
    write_text(
        folder / "projector_config.pbtxt",
        'embeddings {\n  tensor_name: "features"\n  tensor_path: "projector/vectors.tsv"\n'
        f"  tensor_shape: {len(vectors)}\n  tensor_shape: {vectors.shape[1]}\n"
        '  metadata_path: "projector/classes.tsv"\n  sprite {\n    image_path: "projector/thumbnails.png"\n'
        f"    single_image_dim: {side}\n    single_image_dim: {side}\n  }}\n}}\n",
    )


def _scalars_of_row(row: Mapping[str, Any]) -> dict[str, float]:
    """Return tag -> value: losses of both splits in one group per term, so that they are beside each other."""
    hidden = (*_NO_SCALARS, *(["lr"] if any(name.startswith("lr_") for name in row) else []))
    return {_tag_of(name): value for name, value in row.items() if name not in hidden and _is_number(value)}


def _tag_of(name: str) -> str:
    for split in ("train", "val"):
        if name.startswith(f"{split}_"):
            return f"{name.removeprefix(f'{split}_')}/{split}"
    for group in ("gradient_norm", "lr", "bbox", "segm", "keypoints"):
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    if name in _SPEED:
        return f"speed/{name}"
    return f"lr/{name}" if name == "lr" else f"{name}/val"


def _class_scores(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield (beginning of the group, class name, scores by name) of the metrics of detectors and classifiers."""
    parts = [("", metrics)]
    parts += [(f"{kind}_", metrics[kind]) for kind in ("bbox", "segm", "keypoints") if kind in metrics]
    parts += [(f"{field}_", part) for field, part in metrics.get("fields", {}).items()]
    for kind, part in parts:
        for class_name, scores in part.get("per_class", {}).items():
            yield kind, class_name, scores


def _flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of metrics.json: ``{"bbox": {"AP": 0.5}}`` is ``bbox_AP``."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        inner = value if isinstance(value, Mapping) and name != "per_class" and name != "fields" else {name: value}
        prefix = f"{name}_" if inner is value else ""
        flat |= {f"{prefix}{key}": float(number) for key, number in inner.items() if _is_number(number)}
    return {name: value for name, value in flat.items() if name not in _NO_SCALARS and not name.endswith("max_dets")}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else "none" if value is None else str(value)
