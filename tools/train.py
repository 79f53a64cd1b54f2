"""Train a model on a folder of labelled images; without arguments on the demo set.

    python tools/train.py DATA --epochs 10 --output runs/mine

prints the automatically chosen options, one line per epoch, and the run folder. ``--help`` lists all options.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # loader and benchmark processes may import this file
    sys.exit(main(["train", *sys.argv[1:]]))
