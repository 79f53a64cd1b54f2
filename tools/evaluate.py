"""Evaluate a run on labelled images, or any COCO results file against an annotation file.

    python tools/evaluate.py runs/mine
    python tools/evaluate.py --predictions results.json --ground-truth instances.json

print the COCO table and the AP of each class. ``--help`` lists all options.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # loader and benchmark processes may import this file
    sys.exit(main(["evaluate", *sys.argv[1:]]))
