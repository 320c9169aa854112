"""python -m flow: computes, scores and pictures optical flow and tracks, for two images or a video."""

import sys

from flow.cli import main

sys.exit(main(sys.argv[1:]))
