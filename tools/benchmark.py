"""Compare with the plain torchvision loop on the same images, starting weights and epochs.

    python tools/benchmark.py plain DATA --weights mobilenet_v2.pth --epochs 8 --output bench

trains both ways once a seed and prints AP and minutes, mean and range.
"""

import sys

from detseg.cli import main

sys.exit(main(["benchmark", *sys.argv[1:]]))
