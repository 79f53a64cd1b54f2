"""Run a trained model on images.

    python tools/predict.py runs/mine photos/ --output out/

writes ``out/predictions.json`` (COCO results format) and, for each image, a copy with drawn predictions.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # loader and benchmark processes may import this file
    sys.exit(main(["predict", *sys.argv[1:]]))
