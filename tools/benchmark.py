"""Compare with the plain torchvision loop on the same images, starting weights and epochs.

    python tools/benchmark.py plain DATA --weights mobilenet_v2.pth --epochs 8 --output bench

trains both ways once a seed and prints AP and minutes, mean and range.

    python tools/benchmark.py transfer DATA --budgets [3,20] --output transfer

trains from scratch and from pretrained weights, frozen and not, for the same minutes; without DATA on the demo set.
Called again, it goes on with the runs that are missing.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # a process that loads or measures may import this file
    sys.exit(main(["benchmark", *sys.argv[1:]]))
