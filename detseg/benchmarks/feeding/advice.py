"""Derive from the measured rates what limits training, and which options to use."""

from __future__ import annotations

import math
from collections.abc import Sequence

from detseg.benchmarks.feeding.sweep import WorkerRate

SAME = 0.05
"""Rates that differ by less than this share are considered equal: a measurement of seconds varies as much."""

IDLE = 0.05
"""Share of the time below which a wait is not worth mentioning."""


def best_rate(rates: Sequence[WorkerRate]) -> WorkerRate:
    """Return the smallest number of workers that is enough.

    That is one whose rate of training is within :data:`SAME` of the best, or with which the model hardly waits
    (:data:`IDLE`): more workers cannot make it faster then, whatever a short measurement says.
    """
    best = max(rate.training for rate in rates)
    enough = (rate for rate in rates if rate.training >= (1 - SAME) * best or rate.waiting < IDLE)
    return min(enough, key=lambda rate: rate.workers)


def waiting_line(rate: WorkerRate, model_alone: float) -> str:
    """Say who waits for whom.

    Args:
        rate: with the suggested number of workers.
        model_alone: images per second of the model, without loading.
    """
    rates = f"loading alone {rate.loading:.3g} images per second, model alone {model_alone:.3g}"
    who = "the model waits for images" if rate.waiting >= IDLE else "loading waits for the model"
    return f"with --workers {rate.workers} {who}: {rate.waiting:.0%} of the time without work for the model ({rates})"


def workers_line(rates: Sequence[WorkerRate], default: int) -> str:
    """Suggest a number of workers, with its numbers; ``default``: what ``train`` uses on this machine."""
    best = best_rate(rates)
    used = next((rate for rate in rates if rate.workers == default), None)
    line = f"suggestion: --workers {best.workers} ({best.training:.3g} images per second of training"
    if best.workers == default:
        return f"{line}), which is the default of train on this machine"
    if used is None:
        return f"{line}); the default of train on this machine, {default}, was not measured"
    ratio = best.training / used.training
    return f"{line}, {ratio:.2f} times as fast as the default of train on this machine, {default}: {used.training:.3g})"


def decoded_line(gigabytes: float, limit: float, free: float | None, saved: float, sample: float) -> str:
    """Say whether the decoded images fit the cache of a run, and suggest a limit if that helps.

    Args:
        gigabytes: of all decoded images at the model's input size.
        limit: ``--decoded-limit``, in GB.
        free: GB of free disk space; a run uses a quarter of it at most. None if unknown.
        saved: seconds of a sample that the cache saves.
        sample: seconds of a sample without it.
    """
    share = min(1.0, saved / max(sample, 1e-9))
    size = f"{gigabytes:.2g} GB of decoded images"
    effect = f"which saves {share:.0%} of loading in every epoch but the first"
    if gigabytes <= limit and (free is None or gigabytes <= free / 4):
        return f"{size} fit in --decoded-limit {limit:g}, {effect}"
    if free is not None and gigabytes > free / 4:
        return (
            f"{size} do not fit: a run uses a quarter of the {free:.3g} GB that are free, at most. Free disk space, or "
            "store smaller images"
        )
    return f"suggestion: --decoded-limit {math.ceil(gigabytes * 10.1) / 10:g} for {size}, {effect}"
