"""Describe a network module by module: shapes, parameters, trainable or frozen, memory, multiply-adds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.export.exported_file import is_exported
from detseg.keypoints import COCO_NAMES, keypoint_schema
from detseg.options import DescribeConfig
from detseg.reports.table import align
from detseg.runtime.reporter import Reporter, terminal

if TYPE_CHECKING:
    from detseg.models import Model
    from detseg.models.measure import ModuleSize

TYPICAL_HW = (480, 640)
"""Of the image whose size at the network's input is described, for networks that accept any size."""


@dataclass(frozen=True)
class Described:
    """A network and its modules.

    Attributes:
        arch, task: of its description.
        classes: K.
        size_hw: of the network's input.
        modules: the whole network first, then all modules in order; empty for an exported file.
        card: the model card, in Markdown; "" if there is none.
    """

    arch: str
    task: str
    classes: int
    size_hw: tuple[int, int]
    modules: list[ModuleSize]
    card: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as a JSON-able dict."""
        modules = [asdict(module) | {"state": module.state} for module in self.modules]
        first = modules[0] if modules else {}
        whole = {name: value for name, value in first.items() if name not in ("name", "kind", "shapes")}
        head = {"arch": self.arch, "task": self.task, "classes": self.classes, "input": [3, *self.size_hw]}
        return {**head, **whole, "card": self.card, "modules": modules[1:]}

    def lines(self, depth: int) -> list[str]:
        """Return a table of the modules down to ``depth``, and the totals."""
        height, width = self.size_hw
        title = (
            f"{self.arch}, {self.task}, {self.classes} class{'es' if self.classes != 1 else ''}, "
            f"input 3 x {height} x {width}"
        )
        card = ["", *self.card.rstrip("\n").split("\n")] if self.card else []
        if not self.modules:
            return [title, *card]
        whole, rows = self.modules[0], []
        for module in self.modules[1:]:
            level = module.name.count(".")
            if level < depth and (module.parameters or module.multiply_adds):
                rows.append(_row(module, level))
        header = ["module", "kind", "output", "parameters", "", "MB", "million multiply-adds"]
        return [
            title,
            "",
            *align(rows, header),
            "",
            f"parameters      {whole.parameters:,}, trainable {whole.trainable:,}",
            f"weights         {whole.weight_bytes / 1e6:.1f} MB",
            f"layer outputs   {whole.activation_bytes / 1e6:.1f} MB per image",
            f"multiply-adds   {whole.multiply_adds / 1e9:.2f} billion per image",
            *card,
        ]


def _row(module: ModuleSize, level: int) -> list[str]:
    """Return the cells of a module in the table."""
    name = f"{'  ' * level}{module.name.rpartition('.')[2]}"
    sizes = f"{module.weight_bytes / 1e6:.2f}", f"{module.multiply_adds / 1e6:,.1f}"
    return [name, module.kind, _shapes_text(module), f"{module.parameters:,}", module.state, *sizes]


def _shapes_text(module: ModuleSize) -> str:
    """Return ``1 x 64 x 56 x 56``, of several maps the first and their number."""
    if not module.shapes:
        return ""
    first = " x ".join(map(str, module.shapes[0]))
    return first if len(module.shapes) == 1 else f"{first}, ... ({len(module.shapes)} tensors)"


def describe(config: DescribeConfig, *, reporter: Reporter | None = None) -> Described:
    """Report the modules of a run's network, or of an architecture with its own number of classes, and the model card
    of a run; of an exported file, which has no modules, the card."""
    reporter = reporter or terminal()
    described = _exported(config) if is_exported(config.model) else _of_modules(config)
    if config.json:
        reporter.line(json.dumps(described.to_dict()))
    else:
        reporter.lines(described.lines(config.depth))
    return described


def _exported(config: DescribeConfig) -> Described:
    from detseg.inference.onnx_backend import OnnxBackend

    if config.class_count is not None or config.image_size is not None or config.freeze is not None:
        raise DataError("--class-count, --image-size and --freeze are for networks of torch; omit them")
    description = OnnxBackend(config.model, "cpu").description
    size_hw = description.preprocessing.geometry(TYPICAL_HW, 1).network_hw
    return Described(description.arch, description.task, len(description.class_map), size_hw, [], description.card)


def _of_modules(config: DescribeConfig) -> Described:
    from detseg.models.measure import measure  # loads torch, which --help does not need
    from detseg.training.model_card import read_card

    model = _model(config)
    description = model.description
    size_hw = description.preprocessing.geometry(TYPICAL_HW, 1).network_hw
    modules = measure(model, size_hw)
    path = Path(config.model)
    card = read_card(path) if path.exists() else ""
    return Described(description.arch, description.task, len(description.class_map), size_hw, modules, card)


def _model(config: DescribeConfig) -> Model:
    from detseg.checkpoints.checkpoint import load
    from detseg.models import build_model
    from detseg.models import describe as describe_model
    from detseg.models.build import architecture_of
    from detseg.models.create import freeze_as, published_weights
    from detseg.training.run_evaluation import saved_options

    saved: dict[str, Any] = {}
    if Path(config.model).exists():
        if config.class_count is not None or config.image_size is not None:
            raise DataError("--class-count and --image-size are for a model name; a run has its own, omit them")
        saved = saved_options(Path(config.model))
        model: Model = load(Path(config.model))  # type: ignore[assignment]
    else:
        try:
            architecture = architecture_of(config.model)
        except DataError as error:
            raise DataError(f"{config.model}: no such run folder or checkpoint; {error}") from None
        keypoints = keypoint_schema(COCO_NAMES) if architecture.task == "keypoints" else None
        count = config.class_count or {"classify": 1000, "keypoints": 1}.get(architecture.task, 90)
        model = build_model(
            describe_model(
                config.model,
                ClassMap.from_names([f"class {number}" for number in range(1, count + 1)]),
                weights=published_weights(config.model),
                image_size=config.image_size,
                keypoints=keypoints,
            )
        )
    freeze_as(model, config.freeze or saved.get("freeze"), None if config.freeze else saved.get("trainable_layers"))
    return model
