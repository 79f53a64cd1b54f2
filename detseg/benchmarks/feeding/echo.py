"""Compare training with and without data echoing on a slow source, for equal times, on the demo set.

    python -m detseg.benchmarks.feeding.echo --delay 0.5 --seconds 150 --seeds 0 1 2 --output echo.json

Each image that is decoded takes ``--delay`` seconds longer, as from a slow network. The learning rate is constant after
a short warm-up, and only training counts as time, so that all arms end after the same seconds. With ``--no-wait`` the
delays are added up, not waited for, and steps count with their CPU time on one thread: the result then does not depend
on what else the machine does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from detseg.annotations.from_options import load_table
from detseg.annotations.table import Record
from detseg.datasets import Dataset, data_loader, preset
from detseg.datasets.echo import EchoLoader
from detseg.engine.evaluate import evaluate
from detseg.engine.evaluator import make_evaluator
from detseg.engine.update import to_device
from detseg.options import TrainConfig
from detseg.reports.table import align
from detseg.runtime.files import write_json
from detseg.runtime.machine import MachineFacts
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.training.make_plan import make_plan
from detseg.training.new_model import new_model
from detseg.training.optimizer import new_optimizer
from detseg.training.run_splits import run_splits

ECHOES = (1, 2, 4)
WARMUP_STEPS = 10
CPU = torch.device("cpu")


class SlowDataset(Dataset):
    """Samples of a source that takes ``delay`` seconds longer for each image that is decoded."""

    def __init__(self, *arguments: Any, delay: float, waits: bool = True, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.delay, self.waits, self.decoded_images = delay, waits, 0

    def _resized(self, row: int, record: Record) -> npt.NDArray[np.uint8]:
        if self._last is None or self._last[0] != row:
            if self.waits:
                time.sleep(self.delay)
            self.decoded_images += 1
        return super()._resized(row, record)


@dataclass(frozen=True)
class EchoResult:
    """A training of one arm.

    Attributes:
        echo, seed: of the arm.
        seconds: of training; without waiting, delays and CPU seconds.
        steps, decoded: steps of training, and images that were decoded for them.
        box_ap, box_ap50, mask_ap: of the validation split.
    """

    echo: int
    seed: int
    seconds: float
    steps: int
    decoded: int
    box_ap: float
    box_ap50: float
    mask_ap: float


@dataclass(frozen=True)
class Source:
    """What is compared on: seconds of training, the delay of the source, whether it is waited for, and the input size
    (None for that of the demo set)."""

    seconds: float
    delay: float
    waits: bool = True
    image_size: int | None = None


def train_for(source: Source, echo: int, seed: int, reporter: Reporter) -> EchoResult:
    """Train on the demo set for a time, and evaluate."""
    options = TrainConfig(seed=seed, freeze="none", epochs=1, device="cpu", image_size=source.image_size)
    table = load_table(options)
    splits = run_splits(options, table)[0]
    plan = make_plan(options, table, splits["train"], MachineFacts())
    model = new_model(table, plan, reporter=silent())
    task, batch = plan.model.task, plan.training.batch_size
    dataset = SlowDataset(
        splits["train"], model.preprocessing, task=task, augment=preset(plan.training.augment, task), seed=seed,
        echoed=echo > 1, delay=source.delay, waits=source.waits,
    )  # fmt: skip
    loader: Any = (
        EchoLoader(dataset, batch, echo=echo, seed=seed)
        if echo > 1
        else data_loader(dataset, batch, shuffle=True, seed=seed)
    )
    optimizer = new_optimizer(model, plan.optimizer, lr=plan.optimizer.lr)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, WARMUP_STEPS)
    model.train()
    begin, steps, epoch = time.perf_counter() if source.waits else time.process_time(), 0, 0

    def elapsed() -> float:
        if source.waits:
            return time.perf_counter() - begin
        return time.process_time() - begin + source.delay * dataset.decoded_images

    with reporter.bar(f"echo {echo}, seed {seed}", total=round(source.seconds), unit="second") as bar:
        while elapsed() < source.seconds:
            loader.sampler.set_epoch(epoch)
            for images, targets in loader:
                images, targets = to_device(images, targets, CPU)
                optimizer.zero_grad()
                torch.stack(list(model(images, targets).values())).sum().backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), plan.training.clip_norm)
                optimizer.step()
                warmup.step()
                steps += 1
                bar.update(round(elapsed()))
                if elapsed() >= source.seconds:
                    break
            epoch += 1
    used = elapsed()
    val = Dataset(splits["val"], model.preprocessing, task=task)
    evaluator = make_evaluator(splits["val"], task, model.preprocessing)
    scores = evaluate(model, data_loader(val, batch), CPU, evaluator=evaluator, reporter=reporter).scalars()
    box_ap, box_ap50, mask_ap = (float(scores[name] or 0) for name in ("bbox_AP", "bbox_AP50", "segm_AP"))
    return EchoResult(echo, seed, used, steps, dataset.decoded_images, box_ap, box_ap50, mask_ap)


def table_lines(results: Sequence[EchoResult]) -> list[str]:
    """Return the means over seeds, with the range."""

    def cell(values: Sequence[float], digits: int) -> str:
        return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    rows = []
    for echo in sorted({result.echo for result in results}):
        arm = [result for result in results if result.echo == echo]
        columns = {"steps": 0, "decoded": 0, "box_ap": 3, "box_ap50": 3, "mask_ap": 3}
        rows.append([str(echo), *(cell([getattr(r, name) for r in arm], digits) for name, digits in columns.items())])
    return align(rows, ["echo", "steps", "decoded images", "box AP", "box AP50", "mask AP"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all arms for all seeds; a seed begins with another arm, so that no arm always runs first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.5, help="seconds for each decoded image")
    parser.add_argument("--seconds", type=float, default=150.0, help="seconds of training of each arm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-wait", action="store_true", help="add the delays up, and count CPU time")
    parser.add_argument("--image-size", type=int, default=None, help="length of the shorter side in pixels")
    parser.add_argument("--output", type=Path, default=Path("echo.json"))
    options = parser.parse_args(arguments)
    source = Source(options.seconds, options.delay, not options.no_wait, options.image_size)
    if options.no_wait:
        torch.set_num_threads(1)
    reporter, results = terminal(), []
    for seed in options.seeds:
        for place in range(len(ECHOES)):
            echo = ECHOES[(place + seed) % len(ECHOES)]
            results.append(train_for(source, echo, seed, reporter))
            write_json(options.output, [asdict(result) for result in results])
    reporter.lines(table_lines(results))


if __name__ == "__main__":
    main()
