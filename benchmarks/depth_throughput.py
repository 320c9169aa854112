"""Training steps and images a second, for networks, sizes and objectives.

python benchmarks/depth_throughput.py                      # small variants on a CPU
python benchmarks/depth_throughput.py --device cuda --full # the published settings, in float32 and bfloat16
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SELF, SUPERVISED = {"geometry": 0.5}, {"photometric": 0.0, "geometry": 0.0, "supervised": 1.0}
CPU_CASES = (
    ("small", 192, 96, 8, 1, "given", SUPERVISED),
    ("small", 192, 96, 8, 1, "given", {"geometry": 0.0}),
    ("small", 192, 96, 8, 1, "given", SELF),
    ("small", 192, 96, 8, 4, "given", {"geometry": 0.0}),
    ("small", 192, 96, 8, 1, "cnn", {"geometry": 0.0}),
    ("resnet18", 192, 96, 4, 1, "given", {"geometry": 0.0}),
    ("resnet18", 192, 96, 4, 4, "resnet18", {"geometry": 0.0}),
    ("resnet50", 192, 96, 2, 1, "given", {"geometry": 0.0}),
)
"""Network, width, height, batch, scales, poses, weights that differ from the defaults."""
GPU_CASES = (
    ("small", 640, 192, 12, 4, "resnet18", {"geometry": 0.0}),
    ("resnet18", 640, 192, 12, 4, "resnet18", {"geometry": 0.0}),
    ("resnet18", 832, 256, 4, 1, "resnet18", SELF),
    ("resnet50", 640, 192, 12, 4, "resnet18", {"geometry": 0.0}),
    ("packnet_slim", 640, 192, 4, 4, "packnet", {"geometry": 0.0}),
    ("packnet", 640, 192, 4, 4, "packnet", {"geometry": 0.0}),
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="the published networks and sizes; wants a GPU")
    parser.add_argument("--rounds", type=int, default=3, help="steps that are timed; the median counts")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    return parser.parse_args()


def measure(case: tuple, precision: str, device, rounds: int) -> dict:
    """Median time of a step, all of it: forward, losses, backward, optimiser; batches are made beforehand."""
    import torch

    from som.data.memory import memory_sequence
    from som.depth.learning.synthetic import RoadClipConfig, make_road_clip
    from som.depth.learning.training.annotations import Labels
    from som.depth.learning.training.build import make_dataset, make_networks, network_config, resolve_pose
    from som.depth.learning.training.config import DepthTrainingConfig, LossWeights, NetworkOptions
    from som.depth.learning.training.trainer import DepthTrainer

    name, width, height, batch, scales, pose, weights = case
    clip = make_road_clip(RoadClipConfig(frames=4, width=96, height=48))
    size = (height, width)
    sequence = memory_sequence(clip.images, clip.Ks, clip.w2c, size=size)
    truth = torch.nn.functional.interpolate(clip.depth[:, None], size)[:, 0]
    config = DepthTrainingConfig(
        network=NetworkOptions(name, num_scales=scales),
        width=width,
        height=height,
        batch_size=batch,
        pose=pose,
        precision=precision,
        weights=LossWeights(**weights),
    )
    pose = resolve_pose(config, [sequence])
    network = network_config(config, [sequence], pose, truth[truth > 0])
    depth_net, pose_net = make_networks(config, network, pose)
    labels = Labels([sequence], [truth], [torch.ones_like(truth)])
    dataset = make_dataset(config, [sequence], network.initial_depth, labels)
    trainer = DepthTrainer(config, depth_net, dataset, pose_net=pose_net, device=device)
    trainer.objective.train()
    from som.depth.learning.training.batches import load_batches

    batches = list(load_batches(dataset, trainer.plan, 0, 2, 0, trainer.device)) * (rounds + 1)
    stream, walls, cpus = iter(batches), [], []
    for _ in range(rounds + 1):
        wall, cpu = time.monotonic(), time.process_time()
        trainer.train_step(stream)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        walls.append(time.monotonic() - wall)
        cpus.append(time.process_time() - cpu)
    step, cpu = statistics.median(walls[1:]), statistics.median(cpus[1:])
    parameters = sum(p.numel() for p in trainer.objective.parameters()) / 1e6
    row = {"M parameters": parameters, "s a step": step, "CPU s a step": cpu, "targets a second": batch / step}
    if trainer.device.type == "cuda":
        row["GiB"] = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
    return row


def main() -> None:
    arguments = parse_arguments()
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    precisions = ("float32", "bfloat16") if device.type == "cuda" else ("float32",)
    results = {}
    for case in GPU_CASES if arguments.full else CPU_CASES:
        for precision in precisions:
            name, width, height, batch, scales, pose, weights = case
            terms = "supervised" if weights.get("supervised") else "photometric"
            terms += " + geometry" if weights.get("geometry", 0.5) else ""
            title = f"{name} {width}x{height} batch {batch}, {scales} scales, poses {pose}, {terms}, {precision}"
            row = measure(case, precision, device, arguments.rounds)
            results[title] = row
            print(f"{title}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
