"""Which pixels the reliability rules remove, whether they are right, and how often pixel pairs keep their depth order.

Flow is estimated from the images of the rendered yard alone, and judged by its exact depth, cameras and flow. Prints
Markdown: errors by rule, each rule's effect when it alone is left out, agreement of depth order by strategy, and speed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from pathlib import Path

from som.files import decode_image

ROOT = Path(__file__).resolve().parent.parent
YARD = ROOT.parent / "shared" / "data" / "blender_yard"
RULES = {
    "min_confidence": "confidence",
    "min_texture": "texture",
    "min_sharpness_ratio": "sharpness",
    "max_deviation": "deviation",
    "max_appearance_error": "appearance",
}
"""Field that switches a rule off, and the rule's name."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=YARD, help="folder of the yard")
    parser.add_argument("--strides", nargs="+", type=int, default=[1, 2, 4, 8], help="distances in frames")
    parser.add_argument("--every", type=int, default=3, help="judge every n-th frame")
    parser.add_argument("--pairs", type=int, default=16384, help="pairs drawn per pair of frames")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch and OpenCV")
    parser.add_argument("--json", metavar="FILE", help="also write the results to this file")
    return parser.parse_args()


class YardTruth:
    """Exact motion between any two frames t <= u: static surfaces by camera and depth, moving ones by chained flow."""

    def __init__(self, folder: Path):
        import numpy as np
        import torch

        cameras = json.loads((folder / "cameras.json").read_text())
        self.K = torch.tensor(cameras["K"], dtype=torch.float64)
        self.w2c = torch.tensor([frame["w2c"] for frame in cameras["train"]], dtype=torch.float64)
        self.depth = torch.from_numpy(np.load(folder / "train/depth.npz")["depth"])
        given = np.load(folder / "train/flow_fwd.npz")
        self.flow, self.occluded = torch.from_numpy(given["flow"]), torch.from_numpy(given["occluded"])
        paths = sorted((folder / "train/instance").glob("*.png"))
        self.instance = torch.from_numpy(np.stack([decode_image(path) for path in paths]))
        self.moving = (self.instance > 0) & (self.instance < 5)
        self.size = tuple(self.depth.shape[1:])

    def nearest(self, xy):
        """Row and column of the pixel that holds each place, kept in the image."""
        H, W = self.size
        return xy[..., 1].floor().long().clamp(0, H - 1), xy[..., 0].floor().long().clamp(0, W - 1)

    def __call__(self, t: int, u: int):
        """Flow (H,W,2), whether the surface is visible in u, whether all that is known, and its depth in u."""
        import torch

        from flow.sampling import inside, pixel_centers

        centers = pixel_centers(*self.size, dtype=torch.float64)
        rays = torch.cat([centers, torch.ones_like(centers[..., :1])], -1) @ torch.linalg.inv(self.K).T
        T_u_t = self.w2c[u] @ torch.linalg.inv(self.w2c[t])
        points = (rays * self.depth[t].double()[..., None]) @ T_u_t[:3, :3].T + T_u_t[:3, 3]
        z = points[..., 2]
        target = (points @ self.K.T)[..., :2] / z[..., None]
        gaps = []
        for corner in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)):
            at = self.nearest(target + torch.tensor(corner))
            gaps.append(torch.where(self.moving[u][at], torch.inf, (self.depth[u][at] / z - 1).abs()))
        visible = inside(target, *self.size) & (torch.stack(gaps).amin(0) < 0.02)
        known = torch.ones_like(visible)
        moving = self.moving[t]
        target[moving], tracked = self._chain(centers[moving], self.instance[t][moving], t, u)
        visible[moving] = known[moving] = tracked
        z[moving] = self.depth[u][self.nearest(target[moving])].double()
        return (target - centers).float(), visible, known, z.float()

    def _chain(self, places, instance, t: int, u: int):
        """Follows points of moving objects through the given flow; lost where hidden in any frame between."""
        import torch

        from flow.sampling import inside, sample

        tracked = torch.ones(len(places), dtype=torch.bool)
        for k in range(t, u):
            whole = torch.ones_like(tracked)  # all four neighbours lie on the object: interpolate
            for corner in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)):
                whole &= self.instance[k][self.nearest(places + torch.tensor(corner))] == instance
            at = self.nearest(places)
            tracked &= (self.instance[k][at] == instance) & ~self.occluded[k][at]
            between = sample(self.flow[k].double(), places)
            places = places + torch.where(whole[:, None], between, self.flow[k][at].double())
        tracked &= inside(places, *self.size) & (self.instance[u][self.nearest(places)] == instance)
        return places, tracked


def judge_links(flow, images, truth, links, rules):
    """Per link: its flow, what was judged reliable, the flow's error in pixels, and the truth."""
    from flow.reliability import reliable_pixels

    for t, u in links:
        forward = flow.get(t, u)
        exact, visible, known, z = truth[t, u]
        error = (forward - exact).norm(dim=-1)
        judged = reliable_pixels(forward, flow.get(u, t), images[t], images[u], rules=rules)
        yield (t, u), forward, judged, error, visible, known, z


def rule_table(flow, images, truth, moving, links) -> list[dict]:
    """How many pixels each rule removes, and how many of them are wrong."""
    import torch

    from flow.reliability import ReliabilityRules

    sums: dict[str, torch.Tensor] = {}
    for (t, _), _, judged, error, visible, _, _ in judge_links(flow, images, truth, links, ReliabilityRules()):
        wrong, seen = ~visible | (error > 1), visible & moving[t]
        objections = sum(failed.int() for failed in judged.failed.values())
        everything = torch.ones_like(visible)
        rows = {"all pixels": (everything, ~everything), "kept": (judged.mask, ~everything)}
        rows |= {name: (failed, failed & (objections == 1)) for name, failed in judged.failed.items()}
        for name, (chosen, alone) in rows.items():
            good = chosen & visible
            masks = (everything, chosen, alone, chosen & wrong, good, chosen & seen, seen)
            values = [float(mask.sum()) for mask in masks] + [float(error[good].sum())]
            sums[name] = sums.get(name, 0) + torch.tensor(values, dtype=torch.float64)
    table = []
    for name, total in sums.items():
        pixels, chosen, alone, wrong, good, kept, moved, error = total.tolist()
        shares = dict(share=chosen / pixels, alone=alone / pixels, wrong=wrong / max(chosen, 1))
        table.append(dict(rule=name) | shares | dict(epe=error / max(good, 1), moving=kept / max(moved, 1)))
    return table


def order_of_pairs(flow, images, truth, depth, nearest, links, rules, options, guidance="flow") -> dict:
    """How often the true depth order at the pairs is that at the places to which flow leads, and why not."""
    import torch

    from flow.pairs import sample_pairs

    generator, sums, wrong, kept = torch.Generator().manual_seed(0), torch.zeros(7), 0.0, 0.0
    for (t, u), forward, judged, error, visible, known, z in judge_links(flow, images, truth, links, rules):
        maps = {"flow": None, "image": images[t], "depth": 1 / depth[t]}
        pairs = sample_pairs(judged, forward, options, generator, maps[guidance])
        used = pairs.weight > 0
        before = (depth[t].flatten()[pairs.first] / depth[t].flatten()[pairs.second]).log()
        after = (depth[u][nearest(pairs.target_first)] / depth[u][nearest(pairs.target_second)]).log()
        real = (z.flatten()[pairs.first] / z.flatten()[pairs.second]).log()
        clear = used & (before.abs() > 0.05)
        differs = clear & (before * after <= 0)
        sure = known.flatten()[pairs.first] & known.flatten()[pairs.second]
        genuine = differs & sure & (before * real <= 0)
        opposite = differs & (after.abs() > 0.05)
        chosen = (used, used & (before * after <= 0), clear, differs, genuine, differs & ~sure, opposite)
        sums += torch.tensor([float(x.sum()) for x in chosen])
        kept += float(judged.mask.float().mean()) / len(links)
        wrong += float((judged.mask & (~visible | (error > 1))).sum() / judged.mask.sum()) / len(links)
    used, differ_all, clear, differ, genuine, unknown, opposite = sums.tolist()
    return dict(kept=kept, wrong=wrong, used=used / (len(links) * options.num_pairs), clear=clear / used,
                differ_all=differ_all / used, differ=differ / clear, genuine=genuine / clear, unknown=unknown / clear,
                by_flow=(differ - genuine - unknown) / clear, opposite=opposite / clear)  # fmt: skip


def median_ms(function, repeats: int = 21) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def measure_speed(flow, images, links) -> dict:
    """Milliseconds and bytes on the yard's links and on the same scaled to 480x270."""
    import torch
    import torch.nn.functional as F

    from flow.pairs import PairOptions, build_pair_sampler, sample_pairs
    from flow.reliability import reliable_pixels
    from flow.video_flow import VideoFlow

    generator, result = torch.Generator().manual_seed(0), {}
    links = links[:8]
    for height, width in (flow.height, flow.width), (270, 480):
        scale = torch.tensor([width / flow.width, height / flow.height])
        video = VideoFlow(flow.num_frames, (height, width))
        for a, b in [*links, *(link[::-1] for link in links)]:
            resized = F.interpolate(flow.get(a, b).permute(2, 0, 1)[None], (height, width), mode="bilinear")
            video.put(a, b, resized[0].permute(1, 2, 0) * scale)
        resized = F.interpolate(images.permute(0, 3, 1, 2).float(), (height, width), mode="bilinear")
        frames = resized.permute(0, 2, 3, 1).round().to(torch.uint8)
        start = time.perf_counter()
        sampler = build_pair_sampler(video, frames, links=links)
        elapsed = time.perf_counter() - start
        t, u = links[0]
        forward = video.get(t, u)
        judge = [forward, video.get(u, t), frames[t], frames[u]]
        judged = reliable_pixels(*judge)
        row = {
            "build a link": 1e3 * elapsed / len(links),
            "reliable_pixels": median_ms(lambda judge=judge: reliable_pixels(*judge)),
            "sample_pairs": median_ms(lambda j=judged, f=forward: sample_pairs(j, f, None, generator)),
            "draw, 1 link": median_ms(lambda s=sampler: s.draw([0], None, generator)),
            "draw, 8 links": median_ms(lambda s=sampler: s.draw([0, 1, 2, 3, 0, 1, 2, 3], None, generator)),
        }
        plain = build_pair_sampler(video, frames, links=links[:1], options=PairOptions(near=0, edges=0))
        row["draw, 1 link, uniform only"] = median_ms(lambda s=plain: s.draw([0], None, generator))
        row["bytes per link"] = sampler.num_bytes / len(sampler)
        result[f"{width}x{height}"] = row
    return result


LEGEND = """
Pixels: *wrong* is more than 1 px off, or hidden in the other frame; *epe* is the mean error in px of the visible ones;
*alone* would come back if only this rule were off; *moving* is the share of the visible pixels of moving objects.

Pairs: *used* have a weight > 0; *clear* differ by more than 5 % in depth; *differ* are those of them whose depth order
at the places to which flow leads is another one, by true depth in both frames. That is *genuine* where the surfaces do
change order, *by_flow* where they do not, *unknown* where a moving surface is hidden in between; *opposite* of them
differ by more than 5 % the other way. *differ_all* counts pairs that are not clear, too."""


def print_table(title: str, rows: list[dict], percent: set[str]) -> None:
    print(f"\n{title}\n")
    names = list(rows[0])
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        cells = [
            f"{100 * v:.2f} %" if name in percent else f"{v:.3g}" if isinstance(v, float) else str(v)
            for name, v in row.items()
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    arguments = parse_arguments()
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    import cv2
    import torch

    from flow.compute import compute_video_flow
    from flow.factory import make_estimator
    from flow.frames import read_frames
    from flow.pairs import PairOptions
    from flow.reliability import ReliabilityRules

    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    images, _ = read_frames(arguments.data / "train/images")
    yard = YardTruth(arguments.data)
    steps = sorted({2**k for k in range(10) if 2**k <= max(arguments.strides)} | set(arguments.strides))
    flow = compute_video_flow(images, make_estimator("dis"), strides=steps)
    off, on = ReliabilityRules.none(), ReliabilityRules()
    rule_sets = {"all rules": on, "no rule": off, "consistency only": dataclasses.replace(off, consistency=True)}
    rule_sets |= {f"without {name}": dataclasses.replace(on, **{field: None}) for field, name in RULES.items()}
    single = {"uniform": 0.0, "near": 0.0, "edges": 0.0}
    strategies = {name: PairOptions(num_pairs=arguments.pairs, **(single | {name: 1.0})) for name in single}
    guides = {"uniform": ["flow"], "near": ["flow"], "edges": ["flow", "image", "depth"]}
    results = {}
    print(LEGEND)
    for stride in arguments.strides:
        links = [(t, t + stride) for t in range(0, len(images) - stride, arguments.every)]
        truth = {link: yard(*link) for link in links}
        scene = (flow, images, truth, yard.depth, yard.nearest, links)
        rules = rule_table(flow, images, truth, yard.moving, links)
        left_out = [dict(rules=n) | order_of_pairs(*scene, r, strategies["uniform"]) for n, r in rule_sets.items()]
        pairs = [
            dict(strategy=f"{name}, {guide}" if name == "edges" else name, rules=judged)
            | order_of_pairs(*scene, rule_sets[judged], strategies[name], guide)
            for name, guidance in guides.items()
            for guide in guidance
            for judged in ("no rule", "all rules")
        ]
        results[f"stride {stride}"] = dict(rules=rules, left_out=left_out, pairs=pairs)
        shares = set(left_out[0]) | {"share", "alone", "wrong", "moving"}
        shares -= {"rules"}
        print_table(f"### Stride {stride}: pixels that a rule removes (wrong: > 1 px off, or hidden)", rules, shares)
        print_table(f"### Stride {stride}: rule sets; order of uniform pairs", left_out, shares)
        print_table(f"### Stride {stride}: depth order by strategy", pairs, shares)
    links = [(t, t + 1) for t in range(0, len(images) - 1, arguments.every)]
    results["speed"] = measure_speed(flow, images, links) if 1 in steps else {}
    rows = [dict(size=size) | row for size, row in results["speed"].items()]
    print_table(f"### Milliseconds for 4096 pairs a link, {arguments.threads} threads", rows, set())
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
