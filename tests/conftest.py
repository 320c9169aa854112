"""Every worker of pytest-xdist computes with one thread; this is read before torch and Numba are."""

import os
from pathlib import Path

import pytest

from som.runs.device import set_up_process

set_up_process()
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A small data set folder: the demo's, 48 x 32, 4 times."""
    import som
    from som.data.config import DemoData
    from som.data.demo.generate import cache_folder

    options = DemoData(
        cache_dir=tmp_path_factory.mktemp("demo"), width=48, height=32, num_times=4, held_out_times=1, samples=1
    )
    som.load_dataset(options)
    return cache_folder(options)


@pytest.fixture(scope="session")
def preset(tmp_path_factory) -> str:
    """Settings of a run that takes some seconds."""
    path = tmp_path_factory.mktemp("presets") / "tiny.yaml"
    path.write_text(
        "initialization: {num_foreground: 100, num_background: 200, optimization_steps: 5}\n"
        "training: {batch_size: 1, tracks_per_view: 32, log_every: 2, validations: 0}\n"
    )
    return str(path)


@pytest.fixture(scope="session")
def work_dir(folder, preset, tmp_path_factory) -> Path:
    """A run of 4 steps on the small data set."""
    import som

    work_dir = tmp_path_factory.mktemp("run") / "out"
    som.train(som.load_dataset(folder), work_dir=work_dir, steps=4, preset=preset, device="cpu")
    return work_dir
