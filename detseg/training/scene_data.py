"""Rendered scenes as the data of a run: new ones in every epoch, and the same ones for each evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from detseg.annotations import AnnotationTable
from detseg.annotations.fingerprint import Fingerprint
from detseg.datasets import data_loader
from detseg.datasets.rendered_scenes import RenderedScenes
from detseg.engine.evaluator import AnyEvaluator, evaluator_for_dataset
from detseg.models import Model
from detseg.options.plan import Phase, Plan
from detseg.runtime.files import write_text
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.seeds import derive_seed
from detseg.training.run_data import Loaders, RunContext

TRAIN, VAL = 0, 1  # scenes of derive_seed(seed, TRAIN, rank) and derive_seed(seed, VAL)


class SceneData:
    """Scenes of :mod:`detseg.synthetic.scenes`; the attributes are those of :class:`~detseg.training.run_data.RunData`.

    Args:
        train_images: scenes per epoch, of all processes together.
        val_images: scenes that the weights are evaluated on.
        side: height and width of a scene in pixels.
        seed: of all scenes.
        options: of the pretraining, as TOML, from which it is resumed.
    """

    has_val = True

    def __init__(self, train_images: int, val_images: int, side: int, seed: int, options: str) -> None:
        self.train_images, self.size_hw, self.seed, self.options = train_images, (side, side), seed, options
        self.val = RenderedScenes(val_images, self.size_hw, seed=derive_seed(seed, VAL))
        self.splits: Mapping[str, AnnotationTable] = {}

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The classes; the scenes follow from the options, which a resumed run keeps."""
        return {"classes": list(self.val.class_map.names), "parts": {}}

    @cached_property
    def _evaluator(self) -> AnyEvaluator:
        return evaluator_for_dataset(self.val)  # renders every scene once for the ground truth

    def loaders(
        self, plan: Plan, phase: Phase, model: Model, folder: Path, context: RunContext
    ) -> tuple[Plan, Loaders]:
        """Return loaders that render; every process has scenes of its own."""
        rank, world, batch = context.processes.rank, context.processes.world, plan.training.batch_size
        train = RenderedScenes(self.train_images // world, self.size_hw, seed=derive_seed(self.seed, TRAIN, rank))
        val_loader = data_loader(self.val, batch, rank=rank, world=world)
        return plan, Loaders(data_loader(train, batch, workers=plan.run.workers), val_loader)

    def evaluator(self, plan: Plan, model: Model) -> AnyEvaluator:
        """Return the evaluator of the validation scenes."""
        return self._evaluator

    def write(self, plan: Plan, folder: Path) -> None:
        """Write the options, from which the scenes follow."""
        write_text(RunFolder(folder).scenes, self.options)
