"""Run a trained model on images.

    python tools/predict.py runs/mine photos/ --output out/

writes ``out/predictions.json`` (COCO results form) and one drawn picture an image.
"""

import sys

from detseg.cli import main

sys.exit(main(["predict", *sys.argv[1:]]))
