"""Answer HTTP requests with the predictions of a trained model.

    python tools/serve.py runs/mine --port 8000

prints its address; ``http://127.0.0.1:8000/`` is a page to try it on, and ``POST /predict`` takes images.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
