"""How fast the rasteriser draws and differentiates, on this machine.

Prints, for three image sizes, numbers of Gaussians and of feature channels, the time of a forward pass and of a
forward and backward pass, per number of threads; with ``--compare`` side by side with another implementation of the
same call. See ``--help``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time

SIZES = {
    "small": (160, 120, 10_000, 1.2),
    "medium": (480, 270, 30_000, 1.8),
    "large": (854, 480, 100_000, 1.8),
}
"""Width, height, Gaussians, median sigma on screen in pixels."""
LEAVES = ("means", "quats", "scales", "opacities", "colors")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="scenes to draw")
    parser.add_argument("--channels", nargs="+", type=int, default=[3, 17], help="feature channels")
    parser.add_argument("--threads", nargs="+", type=int, help="numbers of threads (default: 1, 2, 4, ... all cores)")
    parser.add_argument("--views", type=int, default=1, help="cameras per call")
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each case, of which the median is shown")
    parser.add_argument("--device", choices=("cpu", "cuda", "both"), default="both", help="cuda is skipped if absent")
    parser.add_argument("--json", metavar="FILE", help="also write the results to this file")
    parser.add_argument(
        "--compare", metavar="PATH",
        help="Python file with a function rasterization(...) of the same call, to run in turn with ours (CPU only; it "
        "uses as many threads as it likes)",
    )  # fmt: skip
    return parser.parse_args()


def make_scene(size: str, channels: int, views: int, device: str) -> dict:
    """Gaussians of log-normal size, 2 to 10 units in front of slightly turned cameras."""
    import torch

    width, height, n, sigma = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    focal = 0.9 * width
    z = 2 + 8 * torch.rand(n, generator=generator)
    x, y = ((torch.rand(n, generator=generator) * 1.1 - 0.05) * extent for extent in (width, height))
    spread = 0.5 * torch.randn(n, 1, generator=generator) + 0.4 * torch.randn(n, 3, generator=generator)
    viewmats = torch.eye(4).repeat(views, 1, 1)
    for view in range(views):
        angle = 0.05 - 0.01 * view
        viewmats[view, 0, 0] = viewmats[view, 2, 2] = math.cos(angle)
        viewmats[view, 0, 2], viewmats[view, 2, 0] = math.sin(angle), -math.sin(angle)
        viewmats[view, 0, 3] = -5 * math.sin(angle)
    Ks = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]).repeat(views, 1, 1)
    scene = dict(
        means=torch.stack([(x - width / 2) / focal * z, (y - height / 2) / focal * z, z], 1),
        quats=torch.randn(n, 4, generator=generator),
        scales=sigma * spread.exp() * (z / focal)[:, None],
        opacities=0.2 + 0.7 * torch.rand(n, generator=generator),
        colors=torch.rand(n, channels, generator=generator),
        viewmats=viewmats, Ks=Ks, width=width, height=height,
    )  # fmt: skip
    scene = {k: v.to(device) if torch.is_tensor(v) else v for k, v in scene.items()}
    for name in LEAVES:
        scene[name].requires_grad_()
    return scene


def make_cotangents(scene: dict) -> list:
    """Fixed random gradients of the renders and alphas, as a loss would give them."""
    import torch

    generator = torch.Generator().manual_seed(1)
    shape = (scene["viewmats"].shape[0], scene["height"], scene["width"])
    return [
        torch.randn(*shape, channels, generator=generator).to(scene["means"].device)
        for channels in (scene["colors"].shape[-1], 1)
    ]


def run_once(rasterize, scene: dict, cotangents: list) -> tuple[float, float]:
    """Seconds of a forward pass alone, and of a forward and backward pass."""
    import torch

    def now():
        if scene["means"].is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    start = now()
    with torch.no_grad():
        rasterize(**scene)
    middle = now()
    renders, alphas, _ = rasterize(**scene)
    torch.autograd.grad([renders, alphas], [scene[name] for name in LEAVES], cotangents)
    return middle - start, now() - middle


def time_in_turn(implementations: dict, scene: dict, repeats: int) -> dict[str, tuple[float, float]]:
    """Medians per implementation; they run in turn, so that a busy machine is busy for all of them."""
    cotangents = make_cotangents(scene)
    times: dict[str, list] = {name: [] for name in implementations}
    for k in range(repeats + 3):
        for name, rasterize in implementations.items():
            seconds = run_once(rasterize, scene, cotangents)
            if k >= 3:  # the first ones warm up
                times[name].append(seconds)
    return {name: tuple(map(statistics.median, zip(*runs, strict=True))) for name, runs in times.items()}


def count_blended_pairs(scene: dict) -> int:
    """(pixel, Gaussian) pairs with alpha >= 1/255 in front of where the pixel stops: by brute force, in strips."""
    import torch

    from som.rendering import rasterize

    pairs = 0
    with torch.no_grad():
        _, _, info = rasterize(**scene)
        for view in range(scene["viewmats"].shape[0]):
            names = ("means2d", "conics", "opacities", "depths", "radii")
            pairs += _pairs_of_view(*(info[name][view] for name in names), scene["width"], scene["height"])
    return pairs


def _pairs_of_view(means2d, conics, opacities, depths, radii, width, height, block=16) -> int:
    import torch

    order = torch.sort(depths, stable=True)[1]
    order = order[(radii[order] > 0).all(-1)]
    means2d, conics, opacities, radii = (t[order] for t in (means2d, conics, opacities, radii.float()))
    total = 0
    columns, rows = torch.meshgrid(torch.arange(block) + 0.5, torch.arange(block) + 0.5, indexing="xy")
    pixels = torch.stack([columns.reshape(-1), rows.reshape(-1)], 1)
    for top in range(0, height, block):
        strip = (means2d[:, 1] + radii[:, 1] > top) & (means2d[:, 1] - radii[:, 1] < top + block)
        strip_parts = [t[strip] for t in (means2d, conics, opacities, radii)]
        for left in range(0, width, block):
            m, c, o, r = strip_parts
            near = (m[:, 0] + r[:, 0] > left) & (m[:, 0] - r[:, 0] < left + block)
            m, c, o = m[near], c[near], o[near]
            centres = pixels + torch.tensor([left, top])
            centres = centres[(centres[:, 0] < width) & (centres[:, 1] < height)]
            dx, dy = (m[None] - centres[:, None]).unbind(-1)
            alpha = o * torch.exp(-0.5 * (c[:, 0] * dx * dx + c[:, 2] * dy * dy) - c[:, 1] * dx * dy)
            alpha = torch.where(alpha >= 1 / 255, alpha.clamp(max=0.999), 0)
            total += int(((alpha > 0) & (torch.cumprod(1 - alpha, 1) > 1e-4)).sum())
    return total


def peak_flops(threads: int) -> float:
    """Fused multiply-adds of 16 lanes as fast as the processor can do them, in floating-point operations a second."""
    import threading

    import numpy as np
    from numba import njit

    from som.rendering.cpu import simd

    @njit(nogil=True)
    def multiply_and_add(x, out, n):
        a, b = simd.load(x, (0,) * 12), simd.broadcast(np.float32(0.999))
        for _ in range(n):
            a = simd.multiply_add(a, b, b)
        simd.store(out, 0, a)

    x, n = np.ones(16, np.float32), 3_000_000
    outs = [np.zeros(192, np.float32) for _ in range(threads)]
    multiply_and_add(x, outs[0], 10)
    best = 0.0
    for _ in range(3):
        workers = [threading.Thread(target=multiply_and_add, args=(x, out, n)) for out in outs]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, threads * n * 12 * 16 * 2 / (time.perf_counter() - start))
    return best


FLOPS_PER_PAIR = {"forward": (27, 2), "backward": (50, 4)}
"""Operations that one pair cannot do without: a constant, and so many per channel."""


def peak_memory_mib() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def load_other(path: str):
    """The function ``rasterization`` of another Python file."""
    import importlib.util

    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location("compared_rasteriser", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.rasterization


def benchmark_cpu(arguments) -> list[dict]:
    import torch

    from som.rendering import rasterize

    implementations = {"ours": rasterize}
    if arguments.compare:
        implementations["other"] = load_other(arguments.compare)
    cores = os.cpu_count() or 1
    counts = arguments.threads or sorted({1, *(2**k for k in range(1, 8) if 2**k < cores), cores})
    if arguments.compare and not arguments.threads:
        counts = [torch.get_num_threads()]  # the other one cannot be told
    peaks = {threads: peak_flops(threads) for threads in counts}
    results = []
    print(f"{'scene':8}{'chan':>5}{'thr':>4}{'forward':>12}{'fwd+bwd':>12}{'Mpairs':>8}{'ns/pair':>16}{'time/peak':>14}"
          + (f"{'other fwd':>12}{'fwd+bwd':>10}{'ratio':>14}" if arguments.compare else ""))  # fmt: skip
    for size in arguments.sizes:
        pairs = None
        for channels in arguments.channels:
            scene = make_scene(size, channels, arguments.views, "cpu")
            pairs = pairs or count_blended_pairs(scene)
            for threads in counts:
                torch.set_num_threads(threads)
                times = time_in_turn(implementations, scene, arguments.repeats)
                results.append(describe(size, channels, threads, pairs, times, peaks[threads]))
                print(format_row(results[-1]), flush=True)
    return results


def describe(size, channels, threads, pairs, times, peak) -> dict:
    forward, both = times["ours"]
    least = {k: pairs * (a + b * channels) / peak for k, (a, b) in FLOPS_PER_PAIR.items()}
    result = dict(
        device="cpu", scene=size, channels=channels, threads=threads, forward_ms=1e3 * forward, both_ms=1e3 * both,
        pairs=pairs, forward_ns_per_pair=1e9 * forward / pairs, both_ns_per_pair=1e9 * both / pairs,
        pairs_per_second=pairs / forward, peak_gflops=peak / 1e9, forward_times_peak=forward / least["forward"],
        both_times_peak=both / sum(least.values()), peak_memory_mib=peak_memory_mib(),
    )  # fmt: skip
    if "other" in times:
        result |= dict(other_forward_ms=1e3 * times["other"][0], other_both_ms=1e3 * times["other"][1],
                       ratio_forward=forward / times["other"][0], ratio_both=both / times["other"][1])  # fmt: skip
    return result


def format_row(r: dict) -> str:
    row = (
        f"{r['scene']:8}{r['channels']:5}{r['threads']:4}{r['forward_ms']:9.2f} ms{r['both_ms']:9.2f} ms"
        f"{r['pairs'] / 1e6:8.2f}{r['forward_ns_per_pair']:8.2f}{r['both_ns_per_pair']:8.2f}"
        f"{r['forward_times_peak']:7.1f}{r['both_times_peak']:7.1f}"
    )
    if "ratio_both" in r:
        row += (
            f"{r['other_forward_ms']:9.2f} ms{r['other_both_ms']:7.2f} ms"
            f"{r['ratio_forward']:7.2f}{r['ratio_both']:7.2f}"
        )
    return row


def benchmark_cuda(arguments) -> list[dict]:
    import torch

    from som.rendering import rasterize

    if not torch.cuda.is_available():
        print("No CUDA device: gsplat is not measured.")
        return []
    results = []
    print(f"{torch.cuda.get_device_name()}: gsplat")
    for size in arguments.sizes:
        for channels in arguments.channels:
            scene = make_scene(size, channels, arguments.views, "cuda")
            torch.cuda.reset_peak_memory_stats()
            forward, both = time_in_turn({"gsplat": rasterize}, scene, arguments.repeats)["gsplat"]
            memory = torch.cuda.max_memory_allocated() / 2**20
            results.append(dict(device="cuda", scene=size, channels=channels, forward_ms=1e3 * forward,
                                both_ms=1e3 * both, peak_memory_mib=memory))  # fmt: skip
            print(f"{size:8}{channels:5}    {1e3 * forward:9.2f} ms{1e3 * both:9.2f} ms{memory:9.0f} MiB", flush=True)
    return results


def main() -> None:
    arguments = parse_arguments()
    # Spinning threads of torch would be measured instead of the rasteriser; has to be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    results = []
    if arguments.device in ("cpu", "both"):
        results += benchmark_cpu(arguments)
        print("time/peak: how many times as long as the arithmetic alone would take at the measured peak")
        print(f"peak memory of the process {peak_memory_mib() or math.nan:.0f} MiB")
    if arguments.device in ("cuda", "both"):
        results += benchmark_cuda(arguments)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    from som.runs.device import set_up_process

    set_up_process()  # before anything imports torch
    main()
