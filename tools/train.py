"""Train a model on a folder of labelled images; without arguments on the demo set.

    python tools/train.py DATA --epochs 10 --output runs/mine

prints what it picked, one line an epoch, and where the run is. ``--help`` lists all options.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # a process that loads or measures may import this file
    sys.exit(main(["train", *sys.argv[1:]]))
