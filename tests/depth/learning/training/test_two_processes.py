"""Two processes that share a batch compute what one process computes."""

import os
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = """
import sys, torch
from som.depth.learning.synthetic import RoadClipConfig, make_road_clip
from som.depth.learning.training.build import make_dataset, make_networks, network_config, resolve_pose
from som.depth.learning.training.config import DepthTrainingConfig, LossWeights
from som.depth.learning.training.distributed import joined_processes
from som.data.memory import memory_sequence
from som.depth.learning.training.trainer import DepthTrainer

torch.set_num_threads(1)
clip = make_road_clip(RoadClipConfig(frames=5, width=64, height=32))
sequence = memory_sequence(clip.images, clip.Ks, clip.w2c)
config = DepthTrainingConfig(
    width=64, height=32, batch_size=4, micro_batch=2, steps=4, log_every=2, pose=sys.argv[2], max_gradient=0.1,
    weights=LossWeights(geometry=0.5),
)
pose = resolve_pose(config, [sequence])
network = network_config(config, [sequence], pose, torch.zeros(0))
depth_net, pose_net = make_networks(config, network, pose)
dataset = make_dataset(config, [sequence], network.initial_depth)
with joined_processes(torch.device("cpu")) as (processes, device):
    trainer = DepthTrainer(config, depth_net, dataset, pose_net=pose_net, device=device, processes=processes)
    reports = []
    trainer.train(lambda step, total, values: reports.append(values))
    torch.save({"state": trainer.objective.state_dict(), "reports": reports}, f"{sys.argv[1]}.{processes.rank}.pt")
"""


def run(tmp_path: Path, name: str, pose: str, launcher: list[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[4]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *launcher, str(script), str(tmp_path / name), pose]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_gloo_processes_equal_one(tmp_path):
    run(tmp_path, "one", "cnn", [])
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run(tmp_path, "two", "cnn", torchrun)
    one, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one.0", "two.0", "two.1")
    )
    for key, value in one["state"].items():
        if key.endswith("num_batches_tracked"):
            continue  # counts forward passes, two per step in one process
        torch.testing.assert_close(value, first["state"][key], atol=1e-5, rtol=1e-5, msg=key)
        assert torch.equal(first["state"][key], second["state"][key]), key
    assert one["reports"][-1]["loss"] != one["reports"][0]["loss"]
    for name, value in one["reports"][-1].items():
        assert abs(value - first["reports"][-1][name]) < 1e-5, name
