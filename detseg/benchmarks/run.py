"""Run a comparison of ``detseg benchmark``."""

from __future__ import annotations

from detseg.options import BaselineConfig, FeedingConfig, SpeedConfig, TransferConfig
from detseg.runtime.reporter import Reporter


def run_benchmark(
    config: BaselineConfig | TransferConfig | FeedingConfig | SpeedConfig, *, reporter: Reporter | None = None
) -> None:
    """Compare accuracy with the baseline, starting weights at equal training times, or speed part by part; or measure
    how fast data is loaded."""
    if isinstance(config, TransferConfig):
        from detseg.benchmarks.weights import transfer

        transfer(config, reporter=reporter)
    elif isinstance(config, BaselineConfig):
        from detseg.benchmarks.baseline import benchmark

        benchmark(config, reporter=reporter)
    elif isinstance(config, FeedingConfig):
        from detseg.benchmarks.feeding.measure import feeding

        feeding(config, reporter=reporter)
    else:
        from detseg.benchmarks.speed.compare import compare

        compare(config, reporter=reporter)
