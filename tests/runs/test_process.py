"""Importing and calling the library leaves the process as it was."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, signal, sys, tempfile
environment = dict(os.environ)
import torch
threads, state = torch.get_num_threads(), torch.get_rng_state()
handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
import ctypes
mallopt = ctypes.CDLL(None).mallopt if sys.platform.startswith("linux") else None
class Library(ctypes.CDLL):
    def __getattr__(self, name):
        assert name != "mallopt", "the library sets up the allocator"
        return super().__getattr__(name)
ctypes.CDLL = Library
import som, flow
from som.data.config import DemoData
from som.data.load import load_dataset
from som.initialization import initialize_scene
from som.initialization.config import InitializationConfig
from som.runs.device import choose_device
from som.training.config import TrainingConfig
from som.training.trainer import Trainer
device = choose_device("cpu")
with tempfile.TemporaryDirectory() as folder:
    from pathlib import Path
    cache = Path(folder) / "cache"
    data = load_dataset(DemoData(cache_dir=cache, width=48, height=32, num_times=4, held_out_times=1, samples=1))
    scene = initialize_scene(data, InitializationConfig(num_foreground=100, num_background=200))
    config = TrainingConfig(steps=2, batch_size=1)
    Trainer(scene, data, config, Path(folder) / "w", device=device).train()
others = {"LD_LIBRARY_PATH", "TORCHINDUCTOR_CACHE_DIR"}  # what OpenCV and torch set
changed = {name for name, _ in os.environ.items() ^ environment.items()}
assert changed <= others, changed
assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
"""


def test_the_library_changes_nothing_of_the_process():
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_command_sets_up_its_process_before_torch_is_there():
    code = (
        "import os, sys; from som.runs.device import set_up_process; set_up_process()\n"
        "assert 'torch' not in sys.modules and os.environ['GOMP_SPINCOUNT'] == '4000'\n"
        "set_up_process(1); import torch; assert torch.get_num_threads() == 1"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
