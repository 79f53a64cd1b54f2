"""NaN and infinity never reach a weight, an average or a checkpoint. N1 and N2 of the scorecard: 100 and 50."""

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
from detseg.training.trainer import Trainer
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


class TrainingState:
    """A model with its optimizer and moving average: everything that an update changes."""

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
        assert [update.updated for update in steps] == [True]

    def state(self) -> dict[str, bytes]:
        """The bytes of parameters, norm statistics, optimizer and average."""
        parts = (self.model.state_dict(), optimizer_tensors(self.model, self.optimizer), self.ema.weights)
        state = {f"{index}.{name}": tensor for index, part in enumerate(parts) for name, tensor in part.items()}
        state["updates"] = torch.tensor(self.ema.updates)
        return {name: tensor.contiguous().numpy().tobytes() for name, tensor in state.items()}

    def gradients(self, step: int, samples: Samples) -> dict[str, torch.Tensor]:
        """Gradients of one update, by parameter; the state is not changed."""
        model = copy.deepcopy(self.model).train()
        torch.manual_seed(step)
        images, targets = zip(*samples, strict=True)
        torch.stack(list(model(list(images), list(targets)).values())).sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def samples_of(step: int) -> Samples:
    """Two float images, with targets for detectors and for classifiers."""
    images = [Images(99)[index] for index in (2 * step + 1, 2 * step + 2)]
    return [(image / 255, target | {"class_index": target["image_id"] % 2}) for image, target in images]


@contextmanager
def injected(kind: str, bad: float, state: TrainingState, step: int, samples: Samples) -> Iterator[Samples]:
    """The samples; inside the block they, a loss, a gradient or a weight contain a number that is not finite."""
    rng = np.random.default_rng([step, KINDS.index(kind)])
    if kind == "input":
        image, target = samples[1]
        image = image.clone()
        image.view(-1)[rng.integers(image.numel())] = bad
        yield [samples[0], (image, target)]
        return
    gradients = state.gradients(step, samples)
    if kind == "weight":  # only weights that the loss depends on: others do not change a loss, and are not checked
        gradients = {name: value for name, value in gradients.items() if value.ndim > 1 and value.any()}
    name = str(rng.choice(sorted(gradients)))
    parameter = state.model.get_parameter(name)
    index = int(rng.choice(gradients[name].flatten().nonzero().flatten().numpy())) if kind == "weight" else 0
    good = float(parameter.detach().view(-1)[index])
    if kind == "loss":
        handle = state.model.register_forward_hook(
            lambda _module, _inputs, losses: losses | {(name := rng.choice(list(losses))): losses[name] * bad}
        )
    elif kind == "gradient":
        handle = parameter.register_hook(lambda gradient: torch.full_like(gradient, bad))
    else:
        parameter.data.view(-1)[index] = bad
    yield samples
    if kind == "weight":
        parameter.data.view(-1)[index] = good
    else:
        handle.remove()


def fault_of(kind: str, bad: float, state: TrainingState, step: int) -> str:
    """What is wrong with an update on a number that is not finite; empty if nothing."""
    samples = samples_of(step)
    with injected(kind, bad, state, step, samples) as changed_samples:
        before = state.state()
        try:
            state.update(step, changed_samples)
        except (NotFinite, DataError) as error:
            ids = [f"image_id {int(target['image_id'])}" for _, target in samples]
            # images are checked before targets, so the message contains the position of the image in the batch
            names = ["image 1 of the batch"] if kind == "input" else ids
            if isinstance(error, DataError) != (kind == "input") or not all(name in str(error) for name in names):
                return f"{type(error).__name__}: {error}"
        else:
            return "no error"
        changed = [name for name, value in state.state().items() if value != before[name]]
        assert all(bool(tensor.isfinite().all()) for tensor in state.ema.weights.values())
    return f"changed {changed}" if changed else ""


def inject(arch: str, updates: int) -> dict[tuple[int, str], str]:
    """The fault at each (update, kind); a good update after four bad ones has the same result as without them."""
    state, clean = TrainingState(arch), TrainingState(arch)
    faults = {}
    for step in range(updates):
        for index, kind in enumerate(KINDS):
            faults[step, kind] = fault_of(kind, BAD[(step + index) % 3], state, step)
        for updated_state in (state, clean):
            updated_state.update(step, samples_of(step))
        assert state.state() == clean.state()
    return faults


def test_some_numbers() -> None:
    assert set(inject(QUICK, 2).values()) == {""}


@pytest.mark.faults
@pytest.mark.parametrize("arch", ARCHS)
def test_100_numbers(arch: str, tally: Callable[[str, int, int], None]) -> None:
    faults = inject(arch, UPDATES)
    print({key: text for key, text in faults.items() if text})
    tally("N1 NaN or infinity in an update: nothing changed", list(faults.values()).count(""), UPDATES * len(KINDS))


@pytest.mark.parametrize("kind", KINDS)
def test_control_a_loop_without_checks_corrupts_the_weights(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detseg.models.one_stage.check_images", lambda *_: None)
    state, samples = TrainingState(QUICK), samples_of(0)
    with injected(kind, math.nan, state, 0, samples) as changed_samples:
        images, targets = zip(*changed_samples, strict=True)
        torch.stack(list(state.model.train()(list(images), list(targets)).values())).sum().backward()
        state.optimizer.step()
        not_finite = sum(int((~parameter.isfinite()).sum()) for parameter in state.model.parameters())
    assert not_finite > 1


def break_one_update(number: int) -> None:
    """Make a loss or gradient not finite in one update of the run, sampled with seed ``number``."""
    rng = np.random.default_rng(number)
    at, gradient, bad = int(rng.integers(STEPS)), bool(rng.integers(2)), BAD[int(rng.integers(3))]
    forward, hooks, count = update_module.forward, list[Any](), 0

    def broken_forward(model: Any, *args: Any) -> Any:
        nonlocal count
        now, count = count == at, count + 1
        while hooks:
            hooks.pop().remove()
        if now and gradient:
            parameters = list(model.parameters())
            parameter = parameters[rng.integers(len(parameters))]
            hooks.append(parameter.register_hook(lambda value: torch.full_like(value, bad)))
        values, loss = forward(model, *args)
        return (dict.fromkeys(values, bad), loss * bad) if now and not gradient else (values, loss)

    update_module.forward = broken_forward  # type: ignore[assignment]


def check_average(change: bool = False) -> None:
    """Make the process fail if an evaluation changes the moving average; ``change``: change it."""
    finish_epoch = Trainer._finish_epoch

    def checked(self: Trainer, *args: Any) -> bool:
        assert self.ema is not None
        before = {name: tensor.clone() for name, tensor in self.ema.weights.items()}
        stopping = finish_epoch(self, *args)
        if change:
            next(iter(self.ema.weights.values())).mul_(2)
        assert all(torch.equal(tensor, before[name]) for name, tensor in self.ema.weights.items())
        return stopping

    Trainer._finish_epoch = checked  # type: ignore[method-assign,assignment]


def is_finite(path: Path) -> bool:
    tensors = read_tensor_file(path)[1].values()
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())


def ends_well(runs: Runs, run: Path, number: int) -> bool:
    """Whether a run with a broken update succeeds, saves only finite numbers, and differs from the clean run."""

    def before() -> None:
        check_average()
        break_one_update(number)

    code = runs.start(run, "--skip-nonfinite", "2", before=before)
    return code == 0 and all(is_finite(run / name) for name in FILES[:2]) and not runs.ends_equal(run)


def test_some_runs(runs: Runs, tmp_path: Path) -> None:
    assert [ends_well(runs, tmp_path / str(number), number) for number in range(2)] == [True] * 2


@pytest.mark.faults
def test_50_runs(runs: Runs, tmp_path: Path, tally: Callable[[str, int, int], None]) -> None:
    lost = [number for number in range(RUNS) if not ends_well(runs, tmp_path / str(number), number)]
    print(f"failed: {lost}")
    tally("N2 run with NaN or infinity ends with finite checkpoints", RUNS - len(lost), RUNS)


def test_control_without_guards_the_checkpoint_is_not_finite(runs: Runs, tmp_path: Path) -> None:
    def before() -> None:
        update_module.math = types.SimpleNamespace(isfinite=lambda value: True, inf=math.inf)  # type: ignore[assignment]
        manager_module.is_finite = ema_module.is_finite = lambda model: True
        break_one_update(0)

    runs.start(tmp_path / "run", "--checkpoint-every", "1", before=before)
    assert not is_finite(tmp_path / "run" / "last.safetensors")


def test_control_an_evaluation_that_changes_the_average_is_detected(runs: Runs, tmp_path: Path) -> None:
    assert runs.start(tmp_path / "run", before=lambda: check_average(change=True)) == 99
