"""python -m flow: computes, scores and pictures optical flow and tracks, for two images or a video."""

import os
import sys

# torch's threads spin after every operation by default and starve the others; has to be set before torch is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "4000")

from flow.cli import main

sys.exit(main(sys.argv[1:]))
