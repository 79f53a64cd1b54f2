"""Run a comparison of ``detseg benchmark``."""

from __future__ import annotations

from detseg.options import BaselineConfig, SpeedConfig, TransferConfig
from detseg.runtime.reporter import Reporter


def run_benchmark(config: BaselineConfig | TransferConfig | SpeedConfig, *, reporter: Reporter | None = None) -> None:
    """Compare accuracy with the baseline, starting weights at equal training times, or speed part by part."""
    if isinstance(config, TransferConfig):
        from detseg.benchmarks.weights import transfer

        transfer(config, reporter=reporter)
    elif isinstance(config, BaselineConfig):
        from detseg.benchmarks.baseline import benchmark

        benchmark(config, reporter=reporter)
    else:
        from detseg.benchmarks.speed.compare import compare

        compare(config, reporter=reporter)
