"""Export a trained model to a file that runs without torch.

    python tools/export.py runs/mine --output mine.onnx

writes one ONNX file with the classes and the preprocessing, and compares it with torch on validation images.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
