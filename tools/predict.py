"""Run a trained model on images.

    python tools/predict.py runs/mine photos/ --output out/

writes ``out/predictions.json`` (COCO results form) and one drawn image an image.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # a process that loads or measures may import this file
    sys.exit(main(["predict", *sys.argv[1:]]))
