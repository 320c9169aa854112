"""How good is the depth? Sweep and network, self-supervision, choice of sources, a learned pose net, against truth.

python benchmarks/depth_quality.py --parts demo --json demo.json
python benchmarks/depth_quality.py --parts rgbd self_supervised sources kitti --pictures pictures/

The parts rgbd and kitti read ../shared/data and are skipped where it is absent. Times are CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("demo", "rgbd", "self_supervised", "sources", "kitti")
RULES = ("consecutive", "offset", "baseline", "overlap", "two_view")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data", help="folder of the recordings")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="training steps in place of every part's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--pictures", type=Path, help="folder for depth maps and error maps")
    return parser.parse_args()


def demo_sequence():
    """The demo scene as a recording with exact depth, poses and masks."""
    from som.data.config import DemoData
    from som.data.demo import cache_folder, load_demo
    from som.data.load import open_sequence

    load_demo(DemoData())
    return open_sequence(cache_folder(DemoData()), cache_images=True)


def kitchen_sequence(data: Path, folder: Path):
    """7-Scenes' kitchen with depth and poses carried into the colour camera (a Kinect's nominal calibration)."""
    from scripts.convert_rgbd_7scenes import convert
    from som.data.load import open_sequence

    convert(data / "rgbd_7scenes", folder, 0, 192, color_focal=525.0, color_offset=-0.025)
    return open_sequence(folder, cache_images=True)


def masks_of(sequence):
    """(T,H,W) of moving pixels, or None."""
    import torch

    return torch.stack([sequence.moving(t) for t in range(len(sequence))]) if sequence.has_moving else None


def best_constant(truth, valid):
    """Each image's own true median everywhere: the best that knows no shape."""
    import torch

    medians = torch.stack([z[m].median() for z, m in zip(truth, valid, strict=True)])
    return medians[:, None, None].expand_as(truth)


def best_plane(truth, valid):
    """The plane of each image whose relative error against the true depth is least (disparity linear in x and y)."""
    import torch

    from som.cameras.geometry import pixel_centers

    planes = []
    H, W = truth.shape[1:]
    design = torch.cat([pixel_centers(H, W) / W, torch.ones(H, W, 1)], -1).double()
    for z, mask in zip(truth.double(), valid, strict=True):
        rows, target = design[mask] * z[mask][:, None], torch.ones(int(mask.sum()), 1, dtype=torch.float64)
        weights = torch.ones_like(target)
        for _ in range(20):  # reweighted towards least absolute error, which abs_rel is
            solution = torch.linalg.lstsq(rows * weights, target * weights).solution
            weights = (rows @ solution - 1).abs().clamp(min=1e-3).rsqrt()
        planes.append((1 / (design @ solution)[..., 0].clamp(min=1e-3)).float())
    return torch.stack(planes)


def scores(depth, truth, valid, names, protocol: str, around=None) -> dict:
    """abs_rel and a1 as they are and median-scaled, coverage, spread of the scale."""
    from som.depth.evaluation import DepthEvaluation
    from som.depth.metrics import resize_by_disparity

    depth = resize_by_disparity(depth, *truth.shape[1:])
    found = {}
    for scale in ("none", "median"):
        evaluation = DepthEvaluation(protocol, scale, "skip")
        for t, name in enumerate(names):
            evaluation.add(depth[t], truth[t], valid[t], name)
        report = evaluation.report()
        suffix = "" if scale == "none" else " scaled"
        found |= {f"abs_rel{suffix}": report.metrics["abs_rel"], f"a1{suffix}": report.metrics["a1"]}
    found |= {"coverage": report.coverage, "scale": report.ratio_median, "scale spread": report.ratio_spread}
    return found | (around or {})


def measure_clip(sequence, protocol: str, arguments, title: str) -> dict:
    """The whole estimate of a posed clip, and what it is made of, against truth and two floors that know the truth."""
    import torch

    from som.depth.estimate import DepthConfig, estimate_depth

    config = DepthConfig(seed=arguments.seed)
    config.student.steps = arguments.steps or config.student.steps
    moving = masks_of(sequence)
    truth = torch.stack([sequence.depth_at_image_size(t) for t in range(len(sequence))])
    valid = truth > 0 if moving is None else (truth > 0) & ~moving
    wall, cpu = time.monotonic(), time.process_time()
    prior = estimate_depth(sequence.images(), sequence.Ks, sequence.w2cs, moving, config=config, progress=tell)
    used = {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - wall}
    names = sequence.names
    rows = {
        "sweep (where known)": scores(prior.teacher, truth, valid, names, protocol),
        "network": scores(prior.network, truth, valid, names, protocol),
        "both": scores(prior.depth, truth, valid, names, protocol, used),
        "floor: true median of each image": scores(best_constant(truth, valid), truth, valid, names, protocol),
        "floor: best plane of each image": scores(best_plane(truth, valid), truth, valid, names, protocol),
    }
    if moving is not None and bool(moving.any()):
        rows["both, moving pixels"] = scores(prior.depth, truth, moving & (truth > 0), names, protocol)
    rows |= by_confidence(prior, truth, moving)
    draw(arguments, title, sequence, prior.depth, prior.confidence, truth)
    return rows


def by_confidence(prior, truth, moving) -> dict:
    """Error of the pixels in bands of confidence: what the confidence is worth."""
    error = (prior.depth - truth).abs() / truth
    rows = {}
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 1.01)):
        mask = (truth > 0) & (prior.confidence >= low) & (prior.confidence < high)
        if bool(mask.any()):
            share = float(mask.sum() / (truth > 0).sum())
            label = f"confidence {low:g} to {min(high, 1):g}"
            rows[label] = {"abs_rel": float(error[mask].mean()), "coverage": share}
    return rows


def self_supervised(sequence, rule: str, steps: int, side: int, arguments, title: str | None = None) -> dict:
    """Training on the views alone with known poses."""
    import torch

    from som.depth.estimate import DepthConfig, estimate_depth

    config = DepthConfig(teacher="none", student_side=side, seed=arguments.seed)
    config.self_supervised.steps = arguments.steps or steps
    config.self_supervised.sources = rule
    config.self_supervised.source_offset = 3
    moving = masks_of(sequence)
    truth = torch.stack([sequence.depth_at_image_size(t) for t in range(len(sequence))])
    wall, cpu = time.monotonic(), time.process_time()
    prior = estimate_depth(sequence.images(), sequence.Ks, sequence.w2cs, moving, config=config, progress=tell)
    used = {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - wall}
    if title is not None:
        draw(arguments, title, sequence, prior.depth, prior.confidence, truth)
    return scores(prior.depth, truth, (truth > 0) & ~moving, sequence.names, "plain", used)


def measure_kitti(arguments) -> dict:
    """A small net and a learned pose net on a drive, scored on another one with laser depth."""
    import torch

    from som.data.load import open_sequence
    from som.depth.estimate import predict_depth
    from som.depth.learning.training.build import make_dataset, make_networks, network_config, resolve_pose
    from som.depth.learning.training.collapse import collapse_reason
    from som.depth.learning.training.config import DepthTrainingConfig, LossWeights
    from som.depth.learning.training.trainer import DepthTrainer

    # K was scaled from 1242x375 and has integer pixel centres
    size, half = (64, 192), (0.5 * 640 / 1242, 0.5 * 192 / 375)
    drive = open_sequence(arguments.data / "kitti_raw_drive_color", center_offset=half, size=size, cache_images=True)
    scored = open_sequence(
        arguments.data / "kitti_traffic_lidar", center_offset=half, depth_unit=1 / 256, size=size, cache_images=True
    )
    config = DepthTrainingConfig(
        pose="resnet18",
        width=size[1],
        height=size[0],
        batch_size=6,
        steps=arguments.steps or 300,
        learning_rate=3e-4,
        weights=LossWeights(geometry=0.5),
        seed=arguments.seed,
        log_every=20,
    )
    pose = resolve_pose(config, [drive])
    depth_net, pose_net = make_networks(config, network_config(config, [drive], pose, torch.zeros(0)), pose)
    trainer = DepthTrainer(config, depth_net, make_dataset(config, [drive], None), pose_net=pose_net)
    losses, cpu = [], time.process_time()

    def report(step: int, total: int, values: dict) -> None:
        losses.append(values["photometric"])
        tell("kitti", step / total)

    trainer.train(report)
    used = {"cpu_s": time.process_time() - cpu, "photometric first": losses[0], "photometric last": losses[-1]}
    own, _ = predict_depth(depth_net, drive)
    reason = collapse_reason(own, depth_net.config.depth_range, config.collapse, poses_learned=True)
    predicted, _ = predict_depth(depth_net, scored)
    truth = torch.stack([scored.depth(t)[0] for t in range(len(scored))])
    valid = truth > 0
    draw(arguments, "kitti", drive, own, None, None)
    floor = best_constant(truth, valid)
    return {
        "network and learned poses": scores(predicted, truth, valid, scored.names, "eigen", used),
        "floor: true median of each image": scores(floor, truth, valid, scored.names, "eigen"),
        "verdict": {"collapsed": 0.0 if reason is None else 1.0, "reason": reason or "none"},
    }


def draw(arguments, title: str, sequence, depth, confidence, truth) -> None:
    """Four frames: image, depth, confidence, truth and error."""
    if arguments.pictures is None:
        return
    from som.depth.draw import color_depth, color_error, disparity_range, sheet, to_bytes
    from som.files import write_image

    rows = []
    for t in [round(k * (len(sequence) - 1) / 3) for k in range(4)]:
        near_far = disparity_range(depth[t] if truth is None else truth[t])
        row = [to_bytes(sequence.image(t)), color_depth(depth[t], near_far)]
        if confidence is not None:
            row.append(to_bytes(confidence[t].expand(3, -1, -1)))
        if truth is not None:
            row += [color_depth(truth[t], near_far), color_error(depth[t], truth[t])]
        rows.append(row)
    write_image(arguments.pictures / f"{title}.png", sheet(rows))


class _Tell:
    """A line of progress every half minute."""

    def __init__(self) -> None:
        self.last = -math.inf

    def __call__(self, stage: str, share: float) -> None:
        if time.monotonic() - self.last > 30:
            self.last = time.monotonic()
            print(f"  {stage} {100 * share:.0f} %", file=sys.stderr, flush=True)


tell = _Tell()


def print_table(title: str, rows: dict[str, dict]) -> None:
    """Numbers under the names of their columns."""
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    print(f"\n## {title}\n\n| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, row in rows.items():
        cells = [row.get(column, "") for column in columns]
        print(f"| {name} | " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells) + " |")
    sys.stdout.flush()


def main() -> None:
    arguments = parse_arguments()
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(arguments.threads)
    results = {}
    for part in arguments.parts:
        needed = {"rgbd": ["rgbd_7scenes"], "kitti": ["kitti_raw_drive_color", "kitti_traffic_lidar"]}.get(part, [])
        if any(not (arguments.data / name).is_dir() for name in needed):
            print(f"\n{part}: skipped, {', '.join(needed)} not found in {arguments.data}")
            continue
        if part == "demo":
            results[part] = measure_clip(demo_sequence(), "plain", arguments, "demo")
        elif part == "rgbd":
            with tempfile.TemporaryDirectory() as folder:
                sequence = kitchen_sequence(arguments.data, Path(folder) / "kitchen")
                results[part] = measure_clip(sequence, "rgbd", arguments, "rgbd")
        elif part == "self_supervised":
            row = self_supervised(demo_sequence(), "consecutive", 150, 192, arguments, part)
            results[part] = {"demo, known poses, consecutive": row}
        elif part == "sources":
            sequence = demo_sequence()
            results[part] = {rule: self_supervised(sequence, rule, 150, 96, arguments) for rule in RULES}
        else:
            results[part] = measure_kitti(arguments)
        print_table(part, results[part])
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
