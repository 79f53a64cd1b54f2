"""NaN and infinity: none reaches a weight, an average or a checkpoint. N1 and N2 of the scorecard: 100 and 50."""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detseg.checkpoints.manager as manager_module
import detseg.engine.ema as ema_module
import detseg.engine.train as train_module
import detseg.engine.update as update_module
from detseg.checkpoints.tensor_file import read_tensor_file
from detseg.classes import ClassMap
from detseg.datasets import data_loader
from detseg.engine.ema import Ema
from detseg.engine.nonfinite import NotFinite
from detseg.engine.optim import build_optimizer, optimizer_tensors
from detseg.errors import DataError
from detseg.models import build_model, describe
from detseg.training.trainer import Training
from tests.faults.children import Images
from tests.faults.conftest import FILES, STEPS, Runs

ARCHS = (
    "fasterrcnn_mobilenet_v3_large_fpn_slim",
    "maskrcnn_mobilenet_v3_large_fpn_slim",
    "retinanet_mobilenet_v2_fpn_slim",
    "fcos_mobilenet_v2_fpn_slim",
    "mobilenet_v3_small",
)
QUICK = "retinanet_mobilenet_v2_fpn_slim"
KINDS = ("loss", "gradient", "input", "weight")
BAD = (math.nan, math.inf, -math.inf)
UPDATES, RUNS = 5, 50

Samples = list[tuple[torch.Tensor, dict[str, torch.Tensor]]]


class Rig:
    """A model with all that an update changes."""

    def __init__(self, arch: str) -> None:
        torch.manual_seed(0)
        self.model: Any = build_model(describe(arch, ClassMap.from_names(["a", "b"]), weights="none", image_size=64))
        self.optimizer = build_optimizer(self.model, name="adamw", lr=1e-3)
        self.ema = Ema(self.model, 0.9)

    def update(self, step: int, samples: Samples) -> None:
        loader = data_loader(samples, 2)  # type: ignore[arg-type]  # a list is a dataset
        steps = train_module.train_steps(
            self.model, self.optimizer, loader, "cpu", step, seed=0, clip_norm=10.0, ema=self.ema
        )
        assert [one.updated for one in steps] == [True]

    def state(self) -> dict[str, bytes]:
        """The bytes of parameters, norm statistics, optimizer and average."""
        parts = (self.model.state_dict(), optimizer_tensors(self.model, self.optimizer), self.ema.weights)
        state = {f"{index}.{name}": tensor for index, part in enumerate(parts) for name, tensor in part.items()}
        state["updates"] = torch.tensor(self.ema.updates)
        return {name: tensor.contiguous().numpy().tobytes() for name, tensor in state.items()}

    def gradients(self, step: int, samples: Samples) -> dict[str, torch.Tensor]:
        """Those of one update, by parameter; the rig stays as it is."""
        model = copy.deepcopy(self.model).train()
        torch.manual_seed(step)
        images, targets = zip(*samples, strict=True)
        torch.stack(list(model(list(images), list(targets)).values())).sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def samples_of(step: int) -> Samples:
    """Two images of float numbers, targets for detectors and for classifiers."""
    images = [Images(99)[index] for index in (2 * step + 1, 2 * step + 2)]
    return [(image / 255, target | {"class_index": target["image_id"] % 2}) for image, target in images]


@contextmanager
def injected(kind: str, bad: float, rig: Rig, step: int, samples: Samples) -> Iterator[Samples]:
    """The samples, with a number that is not finite in them or in the model while it is used."""
    rng = np.random.default_rng([step, KINDS.index(kind)])
    if kind == "input":
        image, target = samples[1]
        image = image.clone()
        image.view(-1)[rng.integers(image.numel())] = bad
        yield [samples[0], (image, target)]
        return
    gradients = rig.gradients(step, samples)
    if kind == "weight":  # that the loss depends on: another cannot be seen in a loss, and is not looked for
        gradients = {name: value for name, value in gradients.items() if value.ndim > 1 and value.any()}
    name = str(rng.choice(sorted(gradients)))
    parameter = rig.model.get_parameter(name)
    place = int(rng.choice(gradients[name].flatten().nonzero().flatten().numpy())) if kind == "weight" else 0
    good = float(parameter.detach().view(-1)[place])
    if kind == "loss":
        handle = rig.model.register_forward_hook(
            lambda _module, _given, losses: losses | {(name := rng.choice(list(losses))): losses[name] * bad}
        )
    elif kind == "gradient":
        handle = parameter.register_hook(lambda gradient: torch.full_like(gradient, bad))
    else:
        parameter.data.view(-1)[place] = bad
    yield samples
    if kind == "weight":
        parameter.data.view(-1)[place] = good
    else:
        handle.remove()


def wrong_with(kind: str, bad: float, rig: Rig, step: int) -> str:
    """What an update with a bad number did that it must not do; empty if nothing."""
    samples = samples_of(step)
    with injected(kind, bad, rig, step, samples) as given:
        before = rig.state()
        try:
            rig.update(step, given)
        except (NotFinite, DataError) as error:
            ids = [f"image_id {int(target['image_id'])}" for _, target in samples]
            # the door looks at images before targets, so it says which image of the batch
            names = ["image 1 of the batch"] if kind == "input" else ids
            if isinstance(error, DataError) != (kind == "input") or not all(name in str(error) for name in names):
                return f"{type(error).__name__}: {error}"
        else:
            return "no error"
        changed = [name for name, value in rig.state().items() if value != before[name]]
        assert all(bool(tensor.isfinite().all()) for tensor in rig.ema.weights.values())
    return f"changed {changed}" if changed else ""


def inject(arch: str, updates: int) -> dict[tuple[int, str], str]:
    """What went wrong at (update, kind); each good update follows four bad ones, and ends as if there were none."""
    rig, clean = Rig(arch), Rig(arch)
    found = {}
    for step in range(updates):
        for index, kind in enumerate(KINDS):
            found[step, kind] = wrong_with(kind, BAD[(step + index) % 3], rig, step)
        for one in (rig, clean):
            one.update(step, samples_of(step))
        assert rig.state() == clean.state()
    return found


def test_some_numbers() -> None:
    assert set(inject(QUICK, 2).values()) == {""}


@pytest.mark.faults
@pytest.mark.parametrize("arch", ARCHS)
def test_100_numbers(arch: str, tally: Callable[[str, int, int], None]) -> None:
    found = inject(arch, UPDATES)
    print({place: text for place, text in found.items() if text})
    tally("N1 NaN or infinity in an update: nothing changed", list(found.values()).count(""), UPDATES * len(KINDS))


@pytest.mark.parametrize("kind", KINDS)
def test_control_a_plain_loop_takes_them_in(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detseg.models.one_stage.check_images", lambda *_: None)
    rig, samples = Rig(QUICK), samples_of(0)
    with injected(kind, math.nan, rig, 0, samples) as given:
        images, targets = zip(*given, strict=True)
        torch.stack(list(rig.model.train()(list(images), list(targets)).values())).sum().backward()
        rig.optimizer.step()
        spoilt = sum(int((~parameter.isfinite()).sum()) for parameter in rig.model.parameters())
    assert spoilt > 1


def breaking(number: int) -> None:
    """A loss or gradient is not finite in one update of the run, drawn by ``number``."""
    rng = np.random.default_rng(number)
    at, gradient, bad = int(rng.integers(STEPS)), bool(rng.integers(2)), BAD[int(rng.integers(3))]
    forward, hooks, count = update_module.forward, list[Any](), 0

    def broken(model: Any, *given: Any) -> Any:
        nonlocal count
        now, count = count == at, count + 1
        while hooks:
            hooks.pop().remove()
        if now and gradient:
            parameters = list(model.parameters())
            parameter = parameters[rng.integers(len(parameters))]
            hooks.append(parameter.register_hook(lambda value: torch.full_like(value, bad)))
        values, loss = forward(model, *given)
        return (dict.fromkeys(values, bad), loss * bad) if now and not gradient else (values, loss)

    update_module.forward = broken  # type: ignore[assignment]


def watching(spoil: bool = False) -> None:
    """The process fails if an evaluation changes the average that the run goes on with."""
    score = Training._score

    def watched(self: Training, *given: Any) -> bool:
        assert self.ema is not None
        before = {name: tensor.clone() for name, tensor in self.ema.weights.items()}
        stopping = score(self, *given)
        if spoil:
            next(iter(self.ema.weights.values())).mul_(2)
        assert all(torch.equal(tensor, before[name]) for name, tensor in self.ema.weights.items())
        return stopping

    Training._score = watched  # type: ignore[method-assign,assignment]


def is_finite(path: Path) -> bool:
    tensors = read_tensor_file(path)[1].values()
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())


def ends_well(runs: Runs, run: Path, number: int) -> bool:
    """Whether a run with a bad number ends, finite in all that it saved, and one update poorer than without."""

    def before() -> None:
        watching()
        breaking(number)

    code = runs.begin(run, "--skip-nonfinite", "2", before=before)
    return code == 0 and all(is_finite(run / name) for name in FILES[:2]) and not runs.ends_equal(run)


def test_some_runs(runs: Runs, tmp_path: Path) -> None:
    assert [ends_well(runs, tmp_path / str(number), number) for number in range(2)] == [True] * 2


@pytest.mark.faults
def test_50_runs(runs: Runs, tmp_path: Path, tally: Callable[[str, int, int], None]) -> None:
    lost = [number for number in range(RUNS) if not ends_well(runs, tmp_path / str(number), number)]
    print(f"not as they must be: {lost}")
    tally("N2 run with NaN or infinity ends with finite checkpoints", RUNS - len(lost), RUNS)


def test_control_without_guards_the_checkpoint_is_not_finite(runs: Runs, tmp_path: Path) -> None:
    def before() -> None:
        update_module.math = types.SimpleNamespace(isfinite=lambda value: True, inf=math.inf)  # type: ignore[assignment]
        manager_module.is_finite = ema_module.is_finite = lambda model: True
        breaking(0)

    runs.begin(tmp_path / "run", "--checkpoint-every", "1", before=before)
    assert not is_finite(tmp_path / "run" / "last.safetensors")


def test_control_an_evaluation_that_changes_the_average_is_seen(runs: Runs, tmp_path: Path) -> None:
    assert runs.begin(tmp_path / "run", before=lambda: watching(spoil=True)) == 99
