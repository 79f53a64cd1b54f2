"""``python -m tests.fuzz --inputs 100000 --seed 0 --jobs 2``: exit code 0 if every input has a right outcome."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.inputs import KINDS
from tests.fuzz.runner import Finding, groups, run_inputs

CHUNK = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input: to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, default=None)
    options = parser.parse_args()
    kinds = {options.kind: 1} if options.kind else None
    started = time.monotonic()
    stop = options.first + options.inputs
    findings: list[Finding] = []
    parts = [range(first, min(first + CHUNK, stop)) for first in range(options.first, stop, CHUNK)]
    with ThreadPoolExecutor(options.jobs) as pool:
        for found in pool.map(lambda part: run_inputs(part, options.seed, kinds), parts):
            findings += found
    for count, finding in groups(findings):
        print(f"{count} x, first input {finding.number}: {finding.problem[:400]!r}")
    seconds = time.monotonic() - started
    print(f"{options.inputs} inputs of seed {options.seed} in {seconds:.0f} s: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[2])
    sys.exit(main())
