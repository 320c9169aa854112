"""Every worker of pytest-xdist computes with one thread; this is read before torch and Numba are."""

import os

from som.runs.device import set_up_process

set_up_process()
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
