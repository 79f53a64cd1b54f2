"""Score a run on labelled images, or anybody's COCO results file against an annotation file.

    python tools/evaluate.py runs/mine
    python tools/evaluate.py --predictions results.json --ground-truth instances.json

print the COCO table and the AP of each class. ``--help`` lists all options.
"""

import sys

from detseg.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
