"""How good depth by plane sweep is, by matching cost, regularisation and other parts of the method; no training.

python benchmarks/plane_sweep.py --scenes demo
python benchmarks/plane_sweep.py --json sweep.json --pictures pictures/

    kitchen  7-Scenes' kitchen at 192x144 against its sensor; depth and poses are first carried into the colour camera
    demo     the project's scene at 192x108, exact depth, static pixels
    yard     the rendered yard at 192x108, exact depth, static pixels
    kitti    KITTI odometry 06 at 320x96, which has no depth: only how much is confirmed, and the pictures

Prints a Markdown table per scene; scenes whose data are absent are skipped and named. Depth ranges are estimated.
Errors are means over images; "scaled" is after scaling each image by its median, "surest half" over the half of the
answered pixels with the highest confidence. Baselines know the truth: each image's median depth and best plane, scored
where the default sweep answers and on all pixels. Times are CPU seconds of this process per frame, all included.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from som.files import write_image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SCENES = ("kitchen", "demo", "yard", "kitti")
VARIANTS = {
    "census, semi-global (default)": {},
    "census": {"large_step": 0.0},
    "zncc, semi-global": {"cost": "zncc"},
    "zncc": {"cost": "zncc", "large_step": 0.0},
    "absolute, semi-global": {"cost": "absolute"},
    "absolute": {"cost": "absolute", "large_step": 0.0},
    "poses refined, swept again": {},
    "no second sweep": {"refine_planes": 0},
    "no averaging over views": {"average": False},
    "best half of the views": {"keep_views": 0.5},
    "all views": {"keep_views": 1.0},
    "sources by index": {"offsets": (-4, -3, -2, -1, 1, 2, 3, 4)},
    "12 sources, up to 6 degrees": {"num_sources": 12, "angles": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), "min_views": 4},
    "depth steps kept": {"max_jump": 1e9},
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--variants", type=int, default=len(VARIANTS), help="only the first so many rows")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data", help="folder of the recordings")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the default's depth")
    return parser.parse_args()


class Clip:
    """Images (T,3,H,W), cameras, and where they exist true depth (T,H,W; 0 unknown) and a mask of what moves."""

    def __init__(self, images, Ks, w2cs, depth=None, moving=None):
        self.images, self.Ks, self.w2cs, self.depth, self.moving = images, Ks, w2cs, depth, moving

    @classmethod
    def from_views(cls, views):
        images = views.images.permute(0, 3, 1, 2)
        images = images.float() / 255 if images.dtype.is_floating_point is False else images
        moving = views.foreground if views.foreground is not None and bool(views.foreground.any()) else None
        return cls(images, views.cameras.K, views.cameras.w2c, views.depths, moving)


def load(scene: str, data: Path) -> Clip:
    """Raises FileNotFoundError where the data are absent."""
    if scene == "demo":
        from som.data.config import DemoData
        from som.data.load import load_dataset

        return Clip.from_views(load_dataset(DemoData(max_side=192)).train)
    folder = data / {"kitchen": "rgbd_7scenes", "yard": "blender_yard", "kitti": "kitti_odom06_gray"}[scene]
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    if scene == "kitti":
        from som.data.load import open_sequence

        # K has KITTI's integer pixel centres, scaled from 1226x370 to 640x192
        clip = open_sequence(folder, center_offset=(0.5 * 640 / 1226, 0.5 * 192 / 370), size=(96, 320))
        return Clip(clip.images(), clip.Ks, clip.w2cs)
    with tempfile.TemporaryDirectory() as temporary:
        if scene == "kitchen":
            from scripts.convert_rgbd_7scenes import convert

            made = convert(folder, Path(temporary), 0, 192, color_focal=525.0, color_offset=-0.025)
            return Clip.from_views(made.train)
        from scripts.convert_blender_yard import convert
        from som.data.config import CustomData
        from som.data.load import load_dataset

        convert(folder, Path(temporary))
        return Clip.from_views(load_dataset(CustomData(root_dir=Path(temporary), max_side=192)).train)


def errors(depth, truth, valid) -> dict:
    """Mean errors over images and the share of the pixels to score that are answered."""
    from som.depth.metrics import depth_metrics

    rows = {"none": [], "median": []}
    answered = 0
    for d, z, v in zip(depth, truth, valid, strict=True):
        answered += int((v & (d > 0)).sum())
        if bool((v & (d > 0)).any()):
            for scale, row in rows.items():
                row.append(depth_metrics(d, z, v, protocol="plain", scale=scale, missing="skip"))

    def mean(scale: str, name: str) -> float:
        return sum(r[name] for r in rows[scale]) / len(rows[scale]) if rows[scale] else float("nan")

    return {
        "abs_rel": mean("none", "abs_rel"),
        "a1": mean("none", "a1"),
        "abs_rel scaled": mean("median", "abs_rel"),
        "a1 scaled": mean("median", "a1"),
        "coverage": answered / int(valid.sum()),
    }


def baselines(truth, valid, answered) -> list[dict]:
    """Each image's median depth and its best plane in inverse depth, by the truth."""
    import torch

    from som.cameras.geometry import pixel_centers

    H, W = truth.shape[1:]
    design = torch.cat([pixel_centers(H, W) / W, torch.ones(H, W, 1)], dim=-1).double()
    constant, plane = torch.zeros_like(truth), torch.zeros_like(truth)
    for t, (z, v) in enumerate(zip(truth, valid, strict=True)):
        constant[t] = z[v].median()
        # rows scaled by depth: least squares of the relative error of disparity
        fit = torch.linalg.lstsq(design[v] * z[v][:, None].double(), torch.ones(int(v.sum()), 1, dtype=torch.float64))
        plane[t] = (1 / (design @ fit.solution)[..., 0].clamp(min=1e-3)).float()
    return [
        {"variant": f"{name}, {where}"} | errors(values, truth, valid & chosen)
        for name, values in (("median depth of the truth", constant), ("best plane of the truth", plane))
        for where, chosen in (("where the sweep answers", answered), ("all pixels", torch.ones_like(valid)))
    ]


def measure(scene: str, clip: Clip, variants: int, pictures: Path | None) -> list[dict]:
    import torch

    from som.depth.sweep import SweepConfig, plane_sweep, refine_poses

    static = torch.ones_like(clip.images[:, 0], dtype=torch.bool) if clip.moving is None else ~clip.moving
    valid = static if clip.depth is None else static & (clip.depth > 0)
    rows, before = [], []
    for name, options in list(VARIANTS.items())[:variants]:
        started = time.process_time()
        result = plane_sweep(clip.images, clip.Ks, clip.w2cs, SweepConfig(**options), clip.moving)
        if name.startswith("poses refined"):
            w2cs = refine_poses(clip.images, clip.Ks, clip.w2cs, result.depth, result.sources, clip.moving)
            result = plane_sweep(clip.images, clip.Ks, w2cs, SweepConfig(**options), clip.moving)
        seconds = (time.process_time() - started) / len(clip.images)
        row = {"variant": name}
        if clip.depth is None:
            row |= {"confirmed": float((result.depth > 0).float().mean())}
        else:
            raw = errors(result.raw_depth, clip.depth, valid)
            row |= errors(result.depth, clip.depth, valid) | {"abs_rel unfiltered": raw["abs_rel"]}
            row |= {"abs_rel surest half": surest_half(result, clip.depth, valid)}
        near, far = result.range
        rows.append(row | {"range": f"{near:.2f} to {far:.2f}", "s/frame": seconds})
        if len(rows) == 1:
            before = [] if clip.depth is None else baselines(clip.depth, valid, result.depth > 0)
            if pictures is not None:
                draw(pictures / f"sweep_{scene}.png", clip, result)
    return before + rows


def surest_half(result, truth, valid) -> float:
    """Mean relative error over the half of the answered pixels with the highest confidence."""
    known = valid & (result.depth > 0)
    if not bool(known.any()):
        return float("nan")
    relative = ((result.depth - truth).abs() / truth.clamp(min=1e-6))[known]
    order = result.confidence[known].argsort(descending=True)
    return float(relative[order[: max(1, len(order) // 2)]].mean())


def draw(path: Path, clip: Clip, result) -> None:
    import torch

    from som.depth.draw import color_depth, color_error, disparity_range, sheet, to_bytes

    labels = ["image", "unfiltered", "confirmed", "confidence"]
    rows = []
    for t in torch.linspace(0, len(clip.images) - 1, 6).long().tolist()[1:-1]:
        shown = disparity_range(result.depth[t] if clip.depth is None else clip.depth[t])
        row = [to_bytes(clip.images[t])]
        row += [color_depth(d[t], shown) for d in (result.raw_depth, result.depth)]
        row += [to_bytes(result.confidence[t].expand(3, -1, -1))]
        if clip.depth is not None:
            row += [color_depth(clip.depth[t], shown), color_error(result.depth[t], clip.depth[t], largest=0.2)]
        rows.append(row)
    if clip.depth is not None:
        labels += ["truth", "error, white is 20 %"]
    write_image(path, sheet(rows, labels))


def print_table(title: str, rows: list[dict]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def cell(value) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    print(f"\n### {title}\n")
    for line in (columns, ["---"] * len(columns), *([cell(row.get(c, "")) for c in columns] for row in rows)):
        print(f"| {' | '.join(line)} |")
    sys.stdout.flush()


def main() -> None:
    options = parse_arguments()
    import torch

    torch.set_num_threads(options.threads)
    results = {}
    for scene in options.scenes:
        try:
            clip = load(scene, options.data)
        except FileNotFoundError as error:
            print(f"\n{scene}: skipped, {error} is absent")
            continue
        results[scene] = measure(scene, clip, options.variants, options.pictures)
        T, _, H, W = clip.images.shape
        print_table(f"{scene}, {T} frames of {W}x{H}", results[scene])
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
