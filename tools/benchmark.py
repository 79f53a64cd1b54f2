"""Compare with a torchvision training loop on the same images, starting weights and epochs.

    python tools/benchmark.py baseline DATA --weights mobilenet_v2.pth --epochs 8 --output bench

trains both implementations once per seed and prints mean and range of AP and minutes.

    python tools/benchmark.py transfer DATA --budgets [3,20] --output transfer

trains from scratch and from pretrained weights, frozen and not frozen, for the same minutes; without DATA on the demo
set. A later call runs the missing runs.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # loader and benchmark processes may import this file
    sys.exit(main(["benchmark", *sys.argv[1:]]))
