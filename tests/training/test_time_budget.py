"""Test ``--minutes``: epochs that fit a budget, from measured speeds, without side effects of the measurement."""

from __future__ import annotations

import json
import shutil
import signal
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from detseg.annotations import AnnotationTable, read
from detseg.checkpoints import load_checkpoint, manager, save_checkpoint
from detseg.cli import main
from detseg.errors import DataError
from detseg.models import freeze
from detseg.models.create import create_model
from detseg.options import TrainConfig
from detseg.options.plan import Plan
from detseg.options.text import flat_options
from detseg.runtime.machine import MachineFacts
from detseg.runtime.processes import Processes
from detseg.runtime.signals import Interrupted, StopRequest
from detseg.synthetic.demo.render import demo_folder
from detseg.training import time_budget as budget
from detseg.training.loaders import DataModule
from detseg.training.make_plan import make_plan
from detseg.training.time_limit import Cut, EpochSeconds, TimeLimit

pytestmark = pytest.mark.usefixtures("no_images")

Train = Callable[..., Path]
MINUTES = ("--epochs", "null", "--image-size", "64", "--augment", "strong")
"""Without the number of epochs that the fixture sets."""


@pytest.fixture(scope="module")
def timed(parts: Path, train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs: each takes more than a third of the minutes, as it seems."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "epoch_seconds", lambda *args: EpochSeconds(130.0, 0.1, 1.0))
        return train(parts, tmp_path_factory.mktemp("timed") / "run", *MINUTES, "--minutes", "6")


def config_of(run: Path) -> dict[str, Any]:
    return flat_options(tomllib.loads((run / "config.toml").read_text()))


def weights_equal(first: Path, second: Path) -> bool:
    a, b = (load_checkpoint(run / "last.safetensors").weights for run in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_minutes_and_the_resulting_epochs_train_the_same_run(
    timed: Path, parts: Path, train: Train, rows: Any, tmp_path: Path
) -> None:
    saved = config_of(timed)
    assert saved["minutes"] == 6
    epochs = saved["epochs"]
    assert len(rows(timed)) == epochs == 2
    by_epochs = train(parts, tmp_path / "run", *MINUTES, "--epochs", str(epochs))
    assert rows(by_epochs) == rows(timed)
    assert weights_equal(by_epochs, timed)
    without = {name: value for name, value in saved.items() if name not in ("minutes", "output")}
    assert without == {name: value for name, value in config_of(by_epochs).items() if name != "output"}


def test_a_resumed_run_keeps_its_epochs_and_measures_nothing(
    timed: Path, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any) -> tuple[float, float]:
        raise AssertionError("measured again")

    monkeypatch.setattr(budget, "epoch_seconds", fail)
    run = tmp_path / "run"
    shutil.copytree(timed, run)
    assert main(["train", "--resume", str(run)]) == 0
    assert weights_equal(run, timed)
    Cut(1, config_of(timed)["epochs"]).write(run)
    more = config_of(timed)["epochs"] + 1
    assert main(["train", "--resume", str(run), "--epochs", str(more)]) == 0
    assert len(rows(run)) == more
    assert "finished in" in capsys.readouterr().out
    assert Cut.read(run) is None, "a later resume would reduce the number of epochs again"
    assert main(["train", "--resume", str(run), "--minutes", "7"]) == 1
    assert "--minutes 7.0 was 6.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--minutes", "1", "--epochs", "2"), "--minutes 1 and --epochs 2"),
        (("--minutes", "0"), "--minutes 0: it must be a number above 0"),
        (("--minutes", "-1", "--epochs", "null"), "--minutes -1"),
        (("--minutes", "inf", "--epochs", "null"), "--minutes inf"),
    ],
)
def test_invalid_options(
    options: tuple[str, ...], expected: str, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    try:
        code = main(["train", str(parts), "--output", str(run), "--device", "cpu", *options])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == (1 if " and " in expected else 2), "a number out of range is a wrong argument"
    assert expected in capsys.readouterr().err
    assert not run.exists()


def test_a_saved_config_works_with_its_epochs_or_its_minutes(
    timed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["train", "--config", str(timed / "config.toml"), "--output"]
    assert main([*again, str(tmp_path / "both")]) == 1
    assert "--minutes null" in capsys.readouterr().err
    assert main([*again, str(tmp_path / "epochs"), "--minutes", "null"]) == 0
    assert weights_equal(tmp_path / "epochs", timed)
    assert "minutes" not in config_of(tmp_path / "epochs")


def plan_of(table: AnnotationTable, **options: Any) -> Plan:
    return make_plan(TrainConfig(data="x", task="segment", **options), table, table, MachineFacts("cpu"))


def plan_for(minutes: float, **options: Any) -> Plan:
    """A plan whose epochs are still to be measured, for 25 training images."""
    return plan_of(read(demo_folder()), minutes=minutes, batch_size=4, **options)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes, and an epoch takes 5 seconds: 3.5 of training, 1 of evaluation, 0.5 to save."""
    monkeypatch.setattr(budget, "epoch_seconds", lambda *args: EpochSeconds(3.5, 1.0, 0.5))
    monkeypatch.setattr(TimeLimit, "left", lambda self: self.seconds - self.after)


def fitted(plan: Plan, *, test_images: int = 0) -> tuple[Plan, budget.Budget, list[str]]:
    """Fit a plan for 25 training images and 5 validation images."""
    module = SimpleNamespace(processes=Processes())
    return budget.fit_to_minutes(plan, None, range(25), range(5), test_images, module, 0.0)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(
    ("minutes", "epochs", "warmup", "milestones"), [(1.0, 10, 7, [7, 9]), (0.9, 9, 6, [6, 8]), (0.25, 1, 0, [1, 1])]
)
def test_epochs_warm_up_and_milestones_depend_on_the_speed(
    minutes: float, epochs: int, warmup: int, milestones: list[int]
) -> None:
    picked, used, lines = fitted(plan_for(minutes, schedule="multistep"))
    assert used.limit.after == budget.DRAWING * 1.0 + budget.AFTER_SECONDS
    assert (picked.training.epochs, picked.phases[-1].epochs) == (epochs, epochs)
    assert (picked.schedule.warmup_steps, picked.schedule.milestones) == (warmup, milestones)
    measured = "measured: training 3.5 s, evaluation 1 s, saving 0.5 s"
    assert f"epochs {epochs} ({measured})" in "\n".join(lines)
    assert fitted(plan_for(minutes, warmup_steps=3))[0].schedule.warmup_steps == 3


@pytest.mark.usefixtures("unhurried")
def test_fewer_evaluations_and_no_test_split_leave_time_for_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "epoch_seconds", lambda *args: EpochSeconds(3.5, 4.0, 0.5))
    counts = [fitted(plan_for(2.0, eval_epochs=eval_epochs))[0].training.epochs for eval_epochs in (1, 4)]
    assert counts[0] < counts[1]
    assert fitted(plan_for(2.0), test_images=40)[0].training.epochs < counts[0]


@pytest.mark.usefixtures("unhurried")
def test_too_few_minutes_are_refused() -> None:
    with pytest.raises(DataError, match=r"--minutes 0\.1: this run needs at least 0\.2 minutes"):
        fitted(plan_for(0.1))


@pytest.mark.usefixtures("unhurried")
def test_the_demo_set_has_fewer_epochs_on_a_slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    table = read(demo_folder())
    plan = make_plan(TrainConfig(), table, table, MachineFacts("cpu"))
    assert (plan.training.minutes, plan.most_epochs, plan.measure_epochs) == (4.0, 16, True)
    fast, _, lines = fitted(plan)
    assert fast.training.epochs == 16
    assert not any("worse" in line for line in lines)
    monkeypatch.setattr(budget, "epoch_seconds", lambda *args: EpochSeconds(25.0, 4.0, 0.5))
    slow, _, lines = fitted(plan)
    assert 6 < slow.training.epochs < 10
    assert "16 epochs would take about 7" in lines[-1]
    assert "train all with --epochs 16" in lines[-1]
    assert not make_plan(TrainConfig(epochs=16), table, table, MachineFacts("cpu")).measure_epochs


@pytest.mark.parametrize("level", ["none", "backbone"])
def test_measuring_has_no_side_effects(parts: Path, tmp_path: Path, level: str) -> None:
    table = read(parts)
    model = create_model(
        "maskrcnn_mobilenet_v3_large_fpn_slim", table.class_map, weights="none", image_size=64, rois_per_image=16
    ).model
    freeze(model, level)
    plan = plan_of(table, minutes=1e-4, batch_size=2, lr=0.1, optimizer="sgd", clip_norm=0)
    data_module = DataModule(plan, plan.phases[0], model, folder=tmp_path)
    data_module.prepare(table, StopRequest())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr] # noqa: NPY002
    assert min(budget.epoch_seconds(plan, model, table, table, data_module, StopRequest())) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("call", [pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow), 9])
def test_a_signal_while_measuring_stops_at_the_next_step(
    call: int, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, in the validation loss or in evaluation."""
    table = read(parts)
    plan = plan_of(table, minutes=1e-4, batch_size=2, lr=0.1, optimizer="sgd", val_loss=True)
    model = create_model(
        "maskrcnn_mobilenet_v3_large_fpn_slim", table.class_map, weights="none", image_size=64, rois_per_image=16
    ).model
    data_module, forward = DataModule(plan, plan.phases[0], model), type(model).forward
    calls = [0]

    def measured(request: StopRequest) -> int:
        def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                request.signal_number = signal.SIGTERM
            return forward(self, *args, **kwargs)

        calls[0] = 0
        monkeypatch.setattr(type(model), "forward", counted)
        budget.epoch_seconds(plan, model, table, table, data_module, request)
        return calls[0]

    with pytest.raises(Interrupted):
        measured(StopRequest())
    assert calls[0] == call
    if call == 1:  # control: without the request it goes on
        call = 0
        assert measured(StopRequest()) > 9


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every checkpoint take 100 simulated seconds."""
    delay, clock = [0.0], time.perf_counter

    def save(*args: Any, **kwargs: Any) -> None:
        delay[0] += 100
        save_checkpoint(*args, **kwargs)

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + delay[0])
    monkeypatch.setattr(manager, "save_checkpoint", save)


def test_the_checkpoint_is_part_of_the_epoch(parts: Path, tmp_path: Path, slow_disk: None) -> None:
    """With cached features an epoch takes less time than its checkpoint."""
    table = read(parts)
    plan = plan_of(table, minutes=1e-4, batch_size=2, lr=0.1, optimizer="adamw", ema=0.9)
    model = create_model(
        "maskrcnn_mobilenet_v3_large_fpn_slim", table.class_map, weights="none", image_size=64, rois_per_image=16
    ).model
    data_module = DataModule(plan, plan.phases[0], model, folder=tmp_path / "run")
    measured = budget.epoch_seconds(plan, model, table, table, data_module, StopRequest())
    assert 100 <= measured.saving < 110
    assert max(measured.training, measured.evaluation) < 100  # control
    assert not list((tmp_path / "run").iterdir())
    data_module = DataModule(plan, plan.phases[0], model)
    assert budget.epoch_seconds(plan, model, table, table, data_module, StopRequest()).saving == 0, (
        "no folder to write to"
    )


def test_the_seconds_of_an_epoch_include_the_previous_checkpoint(
    parts: Path, train: Train, tmp_path: Path, slow_disk: None
) -> None:
    run = train(parts, tmp_path / "run", "--epochs", "2", "--image-size", "64")
    first, second = (json.loads(row)["seconds"] for row in (run / "metrics.jsonl").read_text().splitlines())
    assert first < 100 <= second < 200  # the first epoch has no checkpoint before it


def test_the_warm_up_run_is_not_counted_and_a_slow_run_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(seconds: list[float], time_limit: float) -> tuple[float, int]:
        now, durations = [0.0], iter(seconds)

        def run() -> None:
            now.append(now[-1] + next(durations))

        monkeypatch.setattr(budget.time, "perf_counter", lambda: now[-1])
        return budget._seconds(run, time_limit), len(now) - 1

    assert measured([50, 1, 9, 2], 100) == (2, 4)
    assert measured([50, 1, 2, 9], 2.5) == (1.5, 3)
    assert measured([50, 5, 1, 1], 4) == (5, 2)
