"""How accurate optical flow is, how far its consistency check can be trusted, and how fast whole videos are.

Prints one table per part; parts whose data are absent are skipped and named. See ``--help``.

    pairs    end-point errors on image pairs with known flow (Middlebury, FlyingChairs)
    yard     errors, occlusion and confidence on a rendered video with exact flow
    strides  errors over 1 to 16 frames at exactly known points of that video, searched directly and guided
    video    time and peak memory of five strides in both directions over a whole video
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

PARTS = ("pairs", "yard", "strides", "video")
STRIDES = (1, 2, 4, 8, 16)
CONFIDENCE_EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument("--estimator", default="dis", help="auto, dis, raft-large or raft-small (default: dis)")
    parser.add_argument("--weights", help="checkpoint of a RAFT estimator")
    parser.add_argument("--device", default="cpu", help="where RAFT runs (default: cpu)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the test data")
    parser.add_argument("--video", help="folder of frames or video file to time (default: casual_lady_running)")
    parser.add_argument("--video-size", metavar="WxH", help="resize its frames first, e.g. 854x480")
    parser.add_argument(
        "--max-sides", nargs="+", type=int, default=[480, 0], help="longer sides of the timed fields; 0 is full size"
    )
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4], help="numbers of threads to time")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the results to this file")
    parser.add_argument("--pictures", metavar="FOLDER", type=Path, help="also write pictures of the flow here")
    return parser.parse_args()


def print_table(title: str, rows: list[dict]) -> None:
    """Rows with the same keys as aligned columns."""

    def cell(value) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    table = [list(rows[0])] + [[cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"\n{title}")
    for line in table:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def write_picture(folder: Path | None, name: str, *images) -> None:
    """Writes (H,W,3) uint8 images side by side."""
    if folder is None:
        return
    import torch

    write_image(folder / f"{name}.png", torch.cat(images, 1).numpy())


def score(pred, target, mask) -> dict[str, float]:
    from flow.metrics import end_point_error, fl_score, outlier_share

    return {
        "EPE": float(end_point_error(pred, target, mask)),
        "Fl %": 100 * float(fl_score(pred, target, mask)),
        **{f">{t} px %": 100 * float(outlier_share(pred, target, t, mask)) for t in (1, 3, 5)},
    }


def measure_pairs(args: argparse.Namespace, estimator) -> list[dict]:
    """Every folder with im0.png, im1.png and flow.flo."""
    from flow.color import flow_to_rgb
    from flow.files import read_flow
    from flow.frames import read_frames

    rows = []
    for folder in sorted(path.parent for path in (args.data / "flow").glob("*/flow.flo")):
        truth, valid = read_flow(folder / "flow.flo")
        frames, _ = read_frames([folder / "im0.png", folder / "im1.png"])
        start = time.perf_counter()
        flow = estimator(frames[0], frames[1])
        seconds = time.perf_counter() - start
        largest = float(truth[valid].norm(dim=-1).max())
        rows.append({"pair": folder.name, **score(flow, truth, valid), "ms": 1e3 * seconds})
        write_picture(
            args.pictures, folder.name, frames[0],
            flow_to_rgb(flow, max_magnitude=largest), flow_to_rgb(truth, valid, largest),
        )  # fmt: skip
    return rows


def read_yard(data: Path):
    """Frames (36,H,W,3), exact flow (35,H,W,2) to the next frame, its occlusion and the moving objects (35,H,W)."""
    import numpy as np
    import torch

    from flow.frames import read_frames

    folder = data / "blender_yard" / "train"
    frames, _ = read_frames(folder / "images")
    with np.load(folder / "flow_fwd.npz") as file:
        truth, occluded = torch.from_numpy(file["flow"]), torch.from_numpy(file["occluded"])
    moving = read_frames(folder / "mask", end=len(truth))[0][..., 0] > 127
    return frames, truth, occluded, moving


def measure_yard(args: argparse.Namespace, estimator) -> dict[str, list[dict]]:
    """Accuracy, and whether the forward-backward check knows about it."""
    import torch

    from flow.color import flow_to_rgb
    from flow.consistency import check_consistency
    from flow.metrics import end_point_errors

    frames, truth, occluded, moving = read_yard(args.data)
    steps = range(len(truth))
    forward = torch.stack([estimator(frames[t], frames[t + 1]) for t in steps])
    backward = torch.stack([estimator(frames[t + 1], frames[t]) for t in steps])
    regions = {"all": None, "not occluded": ~occluded, "moving": moving, "moving, not occluded": moving & ~occluded}
    accuracy = [{"pixels": name, **score(forward, truth, mask)} for name, mask in regions.items()]

    errors, checks = end_point_errors(forward, truth), []
    for alpha, beta in ((0.01, 0.5), (0.01, 0.25), (0.01, 0.1)):
        check, _ = check_consistency(forward, backward, alpha, beta)
        failing = ~check.consistent
        checks.append({
            "alpha": alpha, "beta": beta, "passing %": 100 * float(check.consistent.float().mean()),
            "occlusion precision": float((failing & occluded).sum() / failing.sum()),
            "occlusion recall": float((failing & occluded).sum() / occluded.sum()),
            "passing and < 1 px wrong %": 100 * float((errors[check.consistent] < 1).float().mean()),
            "of those not occluded %": 100 * float((errors[check.consistent & ~occluded] < 1).float().mean()),
        })  # fmt: skip
    check, _ = check_consistency(forward, backward)
    bins = []
    for low, high in itertools.pairwise(CONFIDENCE_EDGES):
        # The last bin holds 1 itself.
        chosen = (check.confidence >= low) & (check.confidence < (high if high < 1 else 2)) & ~check.leaves
        bins.append({
            "confidence": f"{low:g} to {high:g}", "pixels %": 100 * float(chosen.float().mean()),
            "mean confidence": float(check.confidence[chosen].mean()),
            "< 1 px wrong": float((errors[chosen] < 1).float().mean()), "EPE": float(errors[chosen].mean()),
        })  # fmt: skip
    known = check.error.isfinite()
    correlation = rank_correlation(check.confidence[known], -errors[known])
    t = 20
    largest = float(truth[t].norm(dim=-1).max())
    hidden = frames[t].clone()
    hidden[check.occluded[t]] = torch.tensor([0, 255, 0], dtype=torch.uint8)
    hidden[check.leaves[t]] = torch.tensor([0, 0, 255], dtype=torch.uint8)
    write_picture(
        args.pictures, f"yard_{t:03d}", hidden,
        flow_to_rgb(forward[t], max_magnitude=largest), flow_to_rgb(truth[t], max_magnitude=largest),
    )  # fmt: skip
    return {
        "accuracy": accuracy, "consistency": checks, "confidence": bins,
        "rank correlation": [{"of confidence and accuracy": correlation}],
    }  # fmt: skip


def rank_correlation(a, b) -> float:
    """Spearman's, with mean ranks for equal values."""
    import torch

    def ranks(values):
        _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
        return (counts.cumsum(0) - (counts - 1) / 2).double()[inverse]

    return float(torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1])


def measure_strides(args: argparse.Namespace, estimator) -> list[dict]:
    """Error at points whose exact tracks are known, where they are visible in both frames."""
    import numpy as np
    import torch

    from flow.compute import compute_video_flow
    from flow.sampling import sample

    frames = read_yard(args.data)[0]
    with np.load(args.data / "blender_yard" / "tracks.npz") as file:
        # The file counts from the centre of the first pixel.
        tracks = torch.from_numpy(file["uv"]).float() + 0.5
        visible = torch.from_numpy(file["visible"])
    rows = []
    for guided in (False, True):
        flow = compute_video_flow(frames, estimator, strides=STRIDES, guided=guided, workers=max(args.workers))
        for stride in STRIDES:
            errors = []
            for source, target in (pair for pair in flow.pairs() if abs(pair[0] - pair[1]) == stride):
                seen = visible[:, source] & visible[:, target]
                start = tracks[seen, source]
                arrival = start + sample(flow.get(source, target), start)
                errors.append((arrival - tracks[seen, target]).norm(dim=-1))
            errors = torch.cat(errors)
            rows.append({
                "search": "guided" if guided else "direct", "stride": stride, "points": len(errors),
                "EPE": float(errors.mean()), "median": float(errors.median()),
                **{f">{t} px %": 100 * float((errors > t).float().mean()) for t in (1, 3, 5)},
            })  # fmt: skip
    return rows


def time_video(args: argparse.Namespace, max_side: int, workers: int, folder: str | None) -> dict:
    """One timed computation; runs in a process of its own, so that its peak memory is its own."""
    import cv2
    import numpy as np

    from flow.compute import compute_video_flow
    from flow.factory import make_estimator
    from flow.frames import read_frames

    frames, _ = read_frames(args.video or args.data / "casual_lady_running" / "images")
    if args.video_size:
        size = tuple(map(int, args.video_size.split("x")))
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames.numpy()])
    estimator = make_estimator(args.estimator, weights=args.weights, device=args.device)
    wall, cpu = time.perf_counter(), time.process_time()
    flow = compute_video_flow(
        frames, estimator, strides=STRIDES, max_side=max_side or None, workers=workers, folder=folder
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    fields = len(flow.pairs())
    if args.pictures is not None:
        from flow.color import flow_to_rgb

        half = flow.num_frames // 2
        for stride in (1, 16):
            write_picture(args.pictures, f"video_{max_side}_stride{stride}", flow_to_rgb(flow.get(half, half + stride)))
    return {
        "fields": fields, "size": f"{flow.width}x{flow.height}", "frames": f"{frames.shape[2]}x{frames.shape[1]}",
        "kept": "in memory" if folder is None else "in files", "workers": workers, "s": wall, "CPU s": cpu,
        "ms per field": 1e3 * wall / fields, "peak MiB": read_peak_memory(),
        "fields MiB": fields * flow.width * flow.height * 4 / 2**20,
    }  # fmt: skip


def read_peak_memory() -> float | str:
    """MiB that this process held at most. (``getrusage`` would count its parent's.)"""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return "unknown"
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure_video(args: argparse.Namespace) -> list[dict]:
    context, rows = multiprocessing.get_context("spawn"), []
    for max_side in args.max_sides:
        for workers, in_files in [*((workers, False) for workers in args.workers), (max(args.workers), True)]:
            with context.Pool(1) as pool, tempfile.TemporaryDirectory() as folder:
                rows.append(pool.apply(time_video, (args, max_side, workers, folder if in_files else None)))
    return rows


def main() -> int:
    args = parse_arguments()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from flow.errors import FlowError
    from flow.factory import make_estimator

    try:
        estimator = make_estimator(args.estimator, weights=args.weights, device=args.device)
        results: dict = {"estimator": estimator.provenance(), "cores": os.cpu_count()}
        print(", ".join(f"{key} {value}" for key, value in results["estimator"].items()), f"; {os.cpu_count()} cores")
        needed = {"pairs": args.data / "flow", "yard": args.data / "blender_yard"}
        needed["strides"] = needed["yard"]
        needed["video"] = Path(args.video) if args.video else args.data / "casual_lady_running"
        for part in args.parts:
            if not needed[part].exists():
                print(f"\n{part}: skipped, {needed[part]} does not exist")
                continue
            if part == "yard":
                results[part] = measure_yard(args, estimator)
                for title, rows in results[part].items():
                    print_table(f"yard, {title}", rows)
                continue
            measure = {"pairs": measure_pairs, "strides": measure_strides}.get(part)
            results[part] = measure(args, estimator) if measure else measure_video(args)
            print_table(part, results[part])
    except FlowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    sys.exit(main())
