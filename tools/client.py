"""Send images to a server and print its answers, a line of JSON per image, or draw them.

    python tools/client.py http://127.0.0.1:8000 photos/ --output out/

writes a copy of each image with drawn predictions.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["client", *sys.argv[1:]]))
