"""python -m flow: computes, scores and pictures optical flow and tracks, for two images or a video."""

import sys

from flow.cli import main
from flow.process import limit_thread_spinning

limit_thread_spinning()  # before anything imports torch
sys.exit(main(sys.argv[1:]))
