"""Run a comparison of ``detseg benchmark``."""

from __future__ import annotations

from detseg.errors import DataError
from detseg.options import BenchmarkConfig
from detseg.runtime.reporter import Reporter


def run_benchmark(config: BenchmarkConfig, *, reporter: Reporter | None = None) -> None:
    """Compare accuracy with the baseline, starting weights at equal training times, or speed part by part."""
    if config.what in ("transfer", "baseline") and config.val == 0:
        raise DataError(f"benchmark {config.what} --val 0: scores need validation images; omit it")
    if config.what == "transfer":
        from detseg.benchmarks.weights import transfer

        transfer(config, reporter=reporter)
    elif config.what == "baseline":
        from detseg.benchmarks.baseline import benchmark

        benchmark(config, reporter=reporter)
    else:
        from detseg.benchmarks.speed.compare import compare

        compare(config, reporter=reporter)
