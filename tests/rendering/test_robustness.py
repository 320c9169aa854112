"""Finite whatever the input, the same every time, from any thread, without leaks, and clear when it refuses."""

import os
import threading

import pytest
import torch

from som.rendering import rasterize
from tests.rendering.scenes import backgrounds_for, draw, random_scene


def all_gradients(scene, **options):
    renders, alphas, info, leaves = draw(rasterize, scene, **options)
    weights = torch.randn(renders.shape, generator=torch.Generator().manual_seed(1))
    ((renders * weights).sum() + alphas.sum()).backward()
    return [renders.detach(), alphas.detach(), *(leaf.grad for leaf in leaves.values())], info


def degenerate_scene() -> dict:
    scene = random_scene(64, 30, 20, 3, 50, cameras=2)
    scene["quats"][0:4] = 0
    scene["quats"][4] *= 1e-20
    scene["quats"][5] *= 1e20
    scene["scales"][6:10] = 0
    scene["scales"][10:14] = 1e30
    scene["scales"][14:16] = 1e12
    scene["scales"][16] = torch.tensor([1e30, 0.0, 1e-30])
    scene["scales"][17] = -0.1
    scene["opacities"][18:20] = 0
    scene["opacities"][20:22] = 1
    scene["opacities"][22] = 1e30
    scene["means"][23:25] = 0
    scene["means"][25] = 1e30
    scene["means"][26] = torch.tensor([1e30, -1e30, 5.0])
    scene["means"][27] = torch.tensor([0.0, 0.0, 0.0100001])
    scene["means"][28] = torch.tensor([3.0, 3.0, 0.0100001])
    scene["means"][29] = torch.tensor([0.0, 0.0, 1e25])
    # the centre of the first camera
    scene["means"][30] = -scene["viewmats"][0, :3, :3].T @ scene["viewmats"][0, :3, 3]
    return scene


@pytest.mark.parametrize("eps2d", [0.3, 0.0])
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("render_mode", ["RGB+ED", "D"])
def test_finite_for_every_finite_input(render_mode, rasterize_mode, eps2d):
    scene = degenerate_scene()
    results, info = all_gradients(
        scene, render_mode=render_mode, rasterize_mode=rasterize_mode, eps2d=eps2d, absgrad=True,
        backgrounds=backgrounds_for(scene),
    )  # fmt: skip
    for tensor in [r for r in results if r is not None]:
        assert tensor.isfinite().all()
    assert info["means2d"].absgrad.isfinite().all()


def test_nan_gaussians_are_left_out():
    scene = random_scene(40, 30, 20, 3, 51)
    without = {k: v[20:] if k in ("means", "quats", "scales", "opacities", "colors") else v for k, v in scene.items()}
    scene["means"][:10] = torch.nan
    scene["opacities"][10:20] = torch.nan
    assert torch.equal(rasterize(**scene)[0], rasterize(**without)[0])


def test_two_runs_are_equal_bit_by_bit():
    scene = random_scene(3000, 100, 70, 5, 52, cameras=2)
    first, second = all_gradients(scene)[0], all_gradients(scene)[0]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_number_of_threads_changes_nothing():
    scene = random_scene(3000, 100, 70, 5, 53, cameras=2)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = all_gradients(scene)[0]
        torch.set_num_threads(4)
        four = all_gradients(scene)[0]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, four, strict=True))


def test_calls_from_several_threads_at_once():
    scenes = [random_scene(500 + 100 * k, 60 + 7 * k, 50, 3 + k, 60 + k) for k in range(4)]
    expected = [all_gradients(scene)[0] for scene in scenes]
    wrong = []

    def work(k):
        for _ in range(10):
            got = all_gradients(scenes[k])[0]
            if not all(torch.equal(a, b) for a, b in zip(got, expected[k], strict=True)):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork():
    """As in a data loader's worker: the helper threads are gone, and new ones are started."""
    scene = random_scene(200, 40, 30, 3, 65)
    with torch.no_grad():
        expected = rasterize(**scene)[0]
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(rasterize(**scene)[0], expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def resident_mebibytes() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_memory_does_not_grow():
    scenes = [random_scene(2000 + 500 * k, 200, 150, 3 + k, 70 + k) for k in range(4)]
    for scene in scenes * 2:
        all_gradients(scene)
    before = resident_mebibytes()
    for _ in range(10):
        for scene in scenes:
            all_gradients(scene)
    assert resident_mebibytes() - before < 30


def test_memory_pool_is_bounded():
    from som.rendering.cpu import memory

    workspace = memory.Workspace()
    arrays = [workspace.empty(10_000_000, "float32") for _ in range(4)]
    assert all(array.ctypes.data % memory.ALIGNMENT == 0 for array in arrays)
    workspace.release()
    assert sum(buffer.size for buffer in memory._pool.free) <= memory.KEPT_BYTES


def change(scene, **changes):
    return scene | changes


WRONG = {
    "means": (dict(means=torch.zeros(10, 2)), "means: expected shape"),
    "quats": (dict(quats=torch.zeros(10, 3)), "quats: expected shape"),
    "scales": (dict(scales=torch.zeros(9, 3)), "scales: expected shape"),
    "opacities": (dict(opacities=torch.zeros(10, 1)), "opacities: expected shape"),
    "colors": (dict(colors=torch.zeros(2, 10, 3)), "colors: expected shape"),
    "no channels": (dict(colors=torch.zeros(10, 0)), "colors: expected shape"),
    "viewmats": (dict(viewmats=torch.eye(4)), "viewmats: expected shape"),
    "no camera": (dict(viewmats=torch.zeros(0, 4, 4)), "viewmats: expected at least one camera"),
    "Ks": (dict(Ks=torch.eye(3)[None].repeat(2, 1, 1)), "Ks: expected shape"),
    "backgrounds": (dict(backgrounds=torch.zeros(1, 4)), "backgrounds: expected shape"),
    "dtype": (dict(scales=torch.zeros(10, 3).double()), "scales: expected dtype torch.float32, got torch.float64"),
    "type": (dict(opacities=[0.5] * 10), "opacities: expected a torch.Tensor, got list"),
    "device": (dict(quats=torch.zeros(10, 4, device="meta")), "quats: expected to be on cpu like means, got meta"),
    "NaN camera": (dict(viewmats=torch.full((1, 4, 4), torch.nan)), "viewmats: expected finite"),
    "infinite K": (dict(Ks=torch.full((1, 3, 3), torch.inf)), "Ks: expected finite"),
    "zero focal": (dict(Ks=torch.zeros(1, 3, 3)), "Ks: expected positive focal lengths, got 0"),
    "width": (dict(width=0), "width: expected a positive whole number"),
    "height": (dict(height=2.5), "height: expected a positive whole number"),
    "near": (dict(near_plane=0.0), "near_plane: expected 0 < near_plane < far_plane"),
    "eps2d": (dict(eps2d=-1.0), "eps2d: expected"),
    "render_mode": (dict(render_mode="RGBD"), "render_mode: expected one of"),
    "rasterize_mode": (dict(rasterize_mode="sharp"), "rasterize_mode: expected one of"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_argument(name):
    changes, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        rasterize(**(random_scene(10, 20, 15, 3) | changes))


def test_importing_compiles_nothing():
    import subprocess
    import sys

    code = "import sys, som.rendering; assert not {'numba', 'gsplat'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
