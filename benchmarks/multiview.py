"""MVDepthNet, trained briefly, against the plane sweep that needs no training, on frames that it has not seen.

python benchmarks/multiview.py --parts demo --work-dir runs/ --json multiview.json
python benchmarks/multiview.py --parts kitchen kitchen_sweep transfer --work-dir runs/

    demo           trained on the project's scene with true depth, under six seeds; tested under another
    kitchen        trained on the first 40 frames of 7-Scenes' kitchen with its sensor, tested on the last 20
    kitchen_sweep  the same, but taught by the plane sweep's depth of these 40 frames
    transfer       the network of ``demo`` on the kitchen's 20 frames and on the rendered yard

Test clips are matched within themselves: neither method sees a training frame. Scores are metric, means over images,
static pixels with known truth. ``all pixels`` of the sweep is its best depth before any filter. Times are CPU seconds.
Networks are kept in --work-dir; what is there is scored and not trained again. Parts without data are skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PARTS = ("demo", "kitchen", "kitchen_sweep", "transfer")
DEMO_SIZE, KITCHEN_SIZE, YARD_SIZE = (96, 192), (128, 160), (96, 192)
TRAIN_SEEDS, TEST_SEED = (1, 2, 3, 4, 5, 6), 0
TRAIN_FRAMES = 40


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data", help="folder of the recordings")
    parser.add_argument("--work-dir", type=Path, required=True, help="gets a folder for each trained network")
    parser.add_argument("--steps", type=int, default=300, help="training steps of four targets")
    parser.add_argument("--width", type=float, default=0.25, help="channels over those of the published network")
    parser.add_argument("--matching", default="census", choices=("census", "zncc", "absolute", "published"))
    parser.add_argument("--supervision", default="log", choices=("log", "inverse"))
    parser.add_argument("--scales", type=int, default=1, help="depth maps that the loss looks at")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--pictures", type=Path, help="folder for depth maps and error maps")
    return parser.parse_args()


def demo_clip(seed: int):
    """The demo scene under a seed, which changes textures, props and motion."""
    from som.data.config import DemoData
    from som.data.demo import cache_folder, load_demo
    from som.data.load import open_sequence

    load_demo(DemoData(seed=seed))
    return open_sequence(cache_folder(DemoData(seed=seed)), size=DEMO_SIZE, cache_images=True)


def converted(scene: str, data: Path):
    """7-Scenes' kitchen in its colour camera, or the rendered yard, at the network's size."""
    from som.data.load import open_sequence

    folder = Path(tempfile.mkdtemp(prefix="multiview_"))
    if scene == "kitchen":
        from scripts.convert_rgbd_7scenes import convert

        convert(data / "rgbd_7scenes", folder, 0, 192, color_focal=525.0, color_offset=-0.025)
        return open_sequence(folder, size=KITCHEN_SIZE, cache_images=True)
    from scripts.convert_blender_yard import convert

    convert(data / "blender_yard", folder)
    return open_sequence(folder, size=YARD_SIZE, cache_images=True)


def trained(arguments, name: str, clips: list, teacher: str):
    """The network of a part, trained or read, and the CPU seconds of its training."""
    from som.depth.learning.multiview.build import make_multiview_trainer
    from som.depth.learning.training.checkpoint import load_checkpoint
    from som.depth.learning.training.config import DepthTrainingConfig, LossWeights, NetworkOptions
    from som.runs.work_dir import checkpoint_path

    height, width = clips[0].size
    config = DepthTrainingConfig(
        network=NetworkOptions(
            name="mvdepthnet", width=arguments.width, matching=arguments.matching, num_scales=arguments.scales
        ),
        num_sources=4,
        width=width,
        height=height,
        batch_size=4,
        steps=arguments.steps,
        weights=LossWeights(photometric=0.0, geometry=0.0, smoothness=0.0, supervised=1.0),
        supervision=arguments.supervision,
        teacher=teacher,
        seed=arguments.seed,
        checkpoint_every=50,
    )
    folder, began = arguments.work_dir / name, time.process_time()
    trainer = make_multiview_trainer(config, clips, work_dir=folder)
    if checkpoint_path(folder).is_file():
        trainer.load(load_checkpoint(checkpoint_path(folder)))
    if trainer.step < config.steps:
        trainer.train(lambda step, total, values: tell(f"{name} {step}/{total} loss {values['loss']:.4f}"))
        seconds = {"training_cpu_s": time.process_time() - began}
        (folder / "time.json").write_text(json.dumps(seconds))
    return trainer.objective.depth_net


def score(arguments, title: str, net, clip) -> dict[str, dict]:
    """Network and sweep on one unseen clip."""
    import torch

    from som.depth.learning.multiview import predict_views
    from som.depth.sweep import plane_sweep

    frames = range(len(clip))
    moving = torch.stack([clip.moving(t) for t in frames]) if clip.has_moving else None
    truth = torch.stack([clip.depth_at_image_size(t) for t in frames])
    valid = truth > 0 if moving is None else (truth > 0) & ~moving
    began = time.process_time()
    found = predict_views(net, clip)
    middle = time.process_time()
    sweep = plane_sweep(clip.images(), clip.Ks, clip.w2cs, moving=moving)
    seconds = {"net": (middle - began) / len(clip), "sweep": (time.process_time() - middle) / len(clip)}
    known = valid & (sweep.depth > 0)
    unknown = valid & (sweep.depth == 0)
    constant = torch.stack([z[m].median() for z, m in zip(truth, valid, strict=True)])[:, None, None].expand_as(truth)
    where = {
        "all pixels": valid,
        "where the sweep is sure": known,
        "where the sweep is not": unknown,
    }
    rows = {f"sweep, {name}": errors(sweep.raw_depth, truth, valid, chosen) for name, chosen in where.items()}
    rows |= {f"network, {name}": errors(found.depth, truth, valid, chosen) for name, chosen in where.items()}
    rows["sweep, filtered"] = errors(sweep.depth, truth, valid, known)
    rows["network, all four views agree"] = errors(found.depth, truth, valid, valid & (found.confidence > 0.99))
    rows["true median of each image"] = errors(constant, truth, valid, valid)
    rows["network, all pixels"]["CPU-s a frame"] = seconds["net"]
    rows["sweep, filtered"]["CPU-s a frame"] = seconds["sweep"]
    static = torch.ones_like(valid) if moving is None else ~moving
    for name, depth in (("sweep, filtered", sweep.depth), ("network, all pixels", found.depth)):
        rows[name] |= cloud_distance(depth * static, truth, clip)
    if arguments.pictures is not None:
        draw(arguments.pictures / f"{title}.png", clip, truth, sweep, found)
    return rows


def errors(depth, truth, valid, chosen) -> dict:
    """abs_rel and a1 over the chosen pixels, and their share of all valid ones."""
    from som.depth.metrics import depth_metrics

    rows = [
        depth_metrics(d, z, mask, protocol="plain", scale="none", missing="skip")
        for d, z, mask in zip(depth, truth, chosen, strict=True)
        if bool((mask & (d > 0)).any())
    ]
    found = {name: sum(row[name] for row in rows) / len(rows) for name in ("abs_rel", "a1")} if rows else {}
    return {**found, "share": float((chosen & (depth > 0)).sum() / valid.sum())}


def cloud_distance(depth, truth, clip) -> dict:
    """Median distance in millimetres of the fused cloud's points to the nearest true point, and its size."""
    import numpy as np
    import torch
    from scipy.spatial import cKDTree

    from som.cameras.geometry import pixel_centers, unproject_to_world
    from som.depth.fusion import FusionOptions, fuse_points

    cloud = fuse_points(depth, clip.images(), clip.Ks, clip.w2cs, FusionOptions())
    if not len(cloud):
        return {"cloud mm": float("nan"), "points": 0}
    xy = pixel_centers(*clip.size).reshape(-1, 2)
    points = [
        unproject_to_world(xy[z > 0], z[z > 0], K, w2c)
        for z, K, w2c in zip(truth.flatten(1), clip.Ks, clip.w2cs, strict=True)
    ]
    distance, _ = cKDTree(torch.cat(points).numpy()).query(cloud.points)
    return {"cloud mm": 1000 * float(np.median(distance)), "points": len(cloud)}


def draw(path: Path, clip, truth, sweep, found) -> None:
    """Four frames: image, truth, the sweep's depth and error, the network's depth, confidence and error."""
    from som.depth.draw import color_depth, color_error, disparity_range, sheet, to_bytes
    from som.files import write_image

    rows = []
    for t in [round(k * (len(clip) - 1) / 3) for k in range(4)]:
        shown = disparity_range(truth[t])
        row = [to_bytes(clip.image(t)), color_depth(truth[t], shown)]
        for depth in (sweep.raw_depth[t], sweep.depth[t], found.depth[t]):
            row += [color_depth(depth, shown), color_error(depth, truth[t], largest=0.3)]
        rows.append([*row, to_bytes(found.confidence[t].expand(3, -1, -1))])
    labels = ("image", "truth", "sweep, all", "error", "filtered", "error", "network", "error to 30 %", "agreement")
    write_image(path, sheet(rows, labels=labels, height=144))


def tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def measure(part: str, arguments) -> dict[str, dict[str, dict]]:
    """The tables of one part, by test clip.

    Raises:
        FileNotFoundError: its recordings are absent.
    """
    if part in ("demo", "transfer"):
        net = trained(arguments, "demo", [demo_clip(seed) for seed in TRAIN_SEEDS], "data")
        if part == "demo":
            return {f"demo, seed {TEST_SEED}": score(arguments, "demo", net, demo_clip(TEST_SEED))}
        scenes = [name for name in ("kitchen", "yard") if (arguments.data / RECORDINGS[name]).is_dir()]
        if not scenes:
            raise FileNotFoundError(arguments.data)
        clips = {name: converted(name, arguments.data) for name in scenes}
        if "kitchen" in clips:
            clips["kitchen"] = clips["kitchen"].select(range(TRAIN_FRAMES, len(clips["kitchen"])))
        return {f"{name}, by the demo's network": score(arguments, name, net, clip) for name, clip in clips.items()}
    if not (arguments.data / RECORDINGS["kitchen"]).is_dir():
        raise FileNotFoundError(arguments.data / RECORDINGS["kitchen"])
    clip = converted("kitchen", arguments.data)
    first, last = clip.select(range(TRAIN_FRAMES)), clip.select(range(TRAIN_FRAMES, len(clip)))
    net = trained(arguments, part, [first], "sweep" if part == "kitchen_sweep" else "data")
    return {f"{part}, frames from {TRAIN_FRAMES} on": score(arguments, part, net, last)}


RECORDINGS = {"kitchen": "rgbd_7scenes", "yard": "blender_yard"}


def print_table(title: str, rows: dict[str, dict]) -> None:
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    print(f"\n### {title}\n\n| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, row in rows.items():
        cells = [row.get(column, "") for column in columns]
        print(f"| {name} | " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells) + " |")
    sys.stdout.flush()


def main() -> None:
    arguments = parse_arguments()
    import torch

    torch.set_num_threads(arguments.threads)
    results = {}
    for part in arguments.parts:
        try:
            tables = measure(part, arguments)
        except FileNotFoundError as error:
            print(f"\n{part}: skipped, {error} is absent")
            continue
        for title, rows in tables.items():
            results[title] = rows
            print_table(title, rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
