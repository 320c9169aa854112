"""How much time each depth term adds to an optimisation step: the demo scene, all variants in turn in one process.

python benchmarks/depth_step_time.py            # --device cuda for gsplat
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

DISPARITY = {"depth": 2.0, "depth_gradient": 4.0}
TERMS = {
    "no depth term": {"depth": 0.0, "depth_gradient": 0.0, "track_depth": 0.0},
    "disparity L1 (the reference)": DISPARITY,
    "+ pearson": DISPARITY | {"pearson": 0.1},
    "+ pearson_patch": DISPARITY | {"pearson_patch": 0.1},
    "+ ordinal": DISPARITY | {"ordinal": 1.0},
    "+ order_across_frames": DISPARITY | {"order_across_frames": 0.5},
    "+ ordinal, order_across_frames": DISPARITY | {"ordinal": 1.0, "order_across_frames": 0.5},
    "+ all four": DISPARITY | {"pearson": 0.1, "pearson_patch": 0.1, "ordinal": 1.0, "order_across_frames": 0.5},
}
"""Weights of each variant, where they differ from 0 for the four terms and from the defaults for the others."""
OFF = {"pearson": 0.0, "pearson_patch": 0.0, "ordinal": 0.0, "order_across_frames": 0.0}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-side", type=int, default=256, help="longer side of the images")
    parser.add_argument("--gaussians", type=int, nargs=2, default=[5000, 15000], help="foreground and background")
    parser.add_argument("--rounds", type=int, default=40, help="steps of every variant; the median counts")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    return parser.parse_args()


def make_trainers(arguments: argparse.Namespace, work_dir: Path) -> dict:
    """One trainer per variant; all start from the same scene and take the same batches."""
    import torch

    from som.correspondence import FlowConfig, link_pixel_pairs, training_flow
    from som.data.config import DemoData
    from som.data.load import load_dataset
    from som.initialization import InitializationConfig, initialize_scene
    from som.training.config import DepthOrderConfig, LossWeights, TrainingConfig
    from som.training.density import AdaptiveDensity
    from som.training.trainer import Trainer

    foreground, background = arguments.gaussians
    dataset = load_dataset(DemoData(max_side=arguments.max_side))
    links = link_pixel_pairs(dataset.train, training_flow(dataset, FlowConfig())[0])
    first = initialize_scene(
        dataset, InitializationConfig(num_foreground=foreground, num_background=background), seed=0
    )
    trainers = {}
    for name, weights in TERMS.items():
        config = TrainingConfig(
            steps=10 * arguments.rounds,
            batch_size=3,
            track_targets=2,
            tracks_per_view=1024,
            density=AdaptiveDensity(enabled=False, max_foreground=foreground, max_background=background),
            losses=LossWeights(**(OFF | weights)),
            depth_order=DepthOrderConfig(start=0.0, full=1e-6),
        )
        scene = type(first).from_state(first.state())
        device = torch.device(arguments.device)
        trainers[name] = Trainer(
            scene, dataset, config, work_dir / str(len(trainers)), device=device, seed=0, links=links
        )
    return trainers


def main() -> None:
    arguments = parse_arguments()
    os.environ.update(OMP_NUM_THREADS=str(arguments.threads), NUMBA_NUM_THREADS=str(arguments.threads))
    import torch

    torch.set_num_threads(arguments.threads)
    wait = torch.cuda.synchronize if arguments.device.startswith("cuda") else (lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        trainers = make_trainers(arguments, Path(folder))
        times = {name: [] for name in trainers}
        for turn in range(arguments.rounds + 5):
            for name, trainer in trainers.items():
                wait()
                began = time.perf_counter()
                trainer.train_step()
                wait()
                if turn >= 5:  # the first ones compile and allocate
                    times[name].append(1000 * (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in times.items()}
    reference = medians["disparity L1 (the reference)"]
    print("| terms | ms a step | against the reference |\n|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value:.1f} | {100 * (value / reference - 1):+.1f} % |")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"device": arguments.device, "ms_per_step": medians}, indent=1))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
