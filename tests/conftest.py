"""Shapes and types are checked at every call; every worker of pytest-xdist computes with one thread.

Both before torch and Numba are read.
"""

import os
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parents[1]


def checked_modules() -> list[str]:
    """All modules but those that Numba compiles, which takes no decorated functions; the packages' own files, whose
    names would stand for all modules in them; and settings whose data set is missing until a command line names it."""
    files = [file for package in ("som", "flow") for file in sorted((ROOT / package).rglob("*.py"))]
    kernels = ROOT / "som" / "rendering" / "cpu"
    others = [f for f in files if f.name not in ("__init__.py", "run_config.py") and kernels not in f.parents]
    chosen = [f for f in others if "numba" not in f.read_text(encoding="utf-8")]
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in chosen]


# an int is a float too (PEP 484)
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook(checked_modules(), CHECKER)

from som.runs.device import set_up_process  # noqa: E402 (is to be checked too)

set_up_process()
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")


class _Unchecked:
    """``pytest.raises`` without checks of types: the error has to be the library's own, which all callers see."""

    def __init__(self, *expected, **options):
        self.context = expect_error(*expected, **options)

    def __enter__(self):
        jaxtyping.config.update("jaxtyping_disable", True)
        return self.context.__enter__()

    def __exit__(self, *error):
        jaxtyping.config.update("jaxtyping_disable", False)
        return self.context.__exit__(*error)


expect_error, pytest.raises = pytest.raises, _Unchecked


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
