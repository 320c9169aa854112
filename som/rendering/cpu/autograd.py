"""The kernels as two steps that PyTorch can differentiate: projection, then blending.

They are two and not one so that ``means2d`` is a tensor of the graph between them, whose gradient density control
reads. Everything else that the second step needs from the first travels in :class:`Footprints`, outside the graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from som.rendering.cpu import blending_backward, blending_forward, projection
from som.rendering.cpu.binning import BINNING_STAGES, RADIX
from som.rendering.cpu.memory import Workspace, aligned_bytes
from som.rendering.cpu.simd import LANES
from som.rendering.cpu.threads import new_progress, run_kernel


@dataclass
class Frame:
    """The sizes and settings of one call."""

    batch: tuple[int, ...]
    n_scenes: int
    n_cameras: int
    n: int
    """Gaussians per scene."""
    width: int
    height: int
    near: float
    far: float
    eps2d: float
    antialiased: bool
    absgrad: bool
    max_threads: int

    @property
    def n_images(self) -> int:
        return self.n_scenes * self.n_cameras

    @property
    def n_chunks(self) -> int:
        return -(-self.n // projection.CHUNK)

    @property
    def tiling(self) -> tuple[int, int, int, int]:
        return self.n_images, self.n, -(-self.width // 16), -(-self.height // 16)

    @property
    def n_tiles(self) -> int:
        images, _, across, down = self.tiling
        return images * across * down

    @property
    def project_threads(self) -> int:
        """No more than there are chunks: waking a thread for nothing takes time, too."""
        return min(self.max_threads, self.n_images * self.n_chunks)

    @property
    def blend_threads(self) -> int:
        """No more than have some tiles to draw."""
        return min(self.max_threads, -(-self.n_tiles // 8))

    @property
    def tiles_at_once(self) -> int:
        """Few enough for the threads to end together."""
        return max(1, self.n_tiles // (self.blend_threads * 32))


@dataclass
class Footprints:
    """What projection leaves for blending, beside its differentiable results."""

    splats: np.ndarray
    radii: np.ndarray
    chunk_starts: np.ndarray
    """(chunks, 2): where each chunk's visible footprints and pairs begin."""
    n_visible: int
    max_pairs: int


def as_array(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor, in order; shares memory where they lie in order."""
    return tensor.detach().contiguous().view(-1).numpy()


def _padded_rows(tensor: Tensor, n_scenes: int, n: int) -> np.ndarray:
    """Rows of all scenes, padded with zeros to the LANES rows per scene that projection needs."""
    if n >= LANES:
        return as_array(tensor)
    rows = tensor.detach().reshape(n_scenes, n, -1)
    return as_array(torch.nn.functional.pad(rows, (0, 0, 0, LANES - n)))


def _unpadded(array: np.ndarray, n_groups: int, n: int, shape: tuple[int, ...]) -> Tensor:
    """Back to n rows per group."""
    tensor = torch.from_numpy(array)
    if n < LANES:
        tensor = tensor.view(n_groups, LANES, -1)[:, :n]
    return tensor.reshape(shape)


def _project_inputs(frame: Frame, *gaussians: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(_padded_rows(tensor, frame.n_scenes, frame.n) for tensor in gaussians)


def _f32(*numbers: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(number) for number in numbers)


class Project(torch.autograd.Function):
    """Gaussians and cameras -> means2d, conics, depths, opacities, radii of every view, shaped (..., C, N, .)."""

    @staticmethod
    def forward(ctx, means, quats, scales, opacities, viewmats, Ks, frame: Frame, handover: list):
        n_rows = frame.n_images * max(frame.n, LANES)
        inputs = _project_inputs(frame, means, quats, scales, opacities)
        means2d, conics, depths, view_opacities = (np.empty(n_rows * k, np.float32) for k in (2, 3, 1, 1))
        radii = np.empty(n_rows * 2, np.int32)
        splats = aligned_bytes(n_rows * projection.SPLAT * 4).view(np.float32)  # two rows per cache line
        counts = np.empty(frame.n_images * frame.n_chunks * 2, np.int64)
        run_kernel(
            projection.project_forward, frame.project_threads,
            new_progress(1), (frame.n_scenes, frame.n_cameras, max(frame.n, LANES)),
            *_f32(frame.width, frame.height, frame.near, frame.far, frame.eps2d), frame.antialiased, inputs,
            as_array(viewmats), as_array(Ks), (means2d, conics, depths, radii, view_opacities, splats), counts,
        )  # fmt: skip
        lead = (*frame.batch, frame.n_cameras, frame.n)
        results = [
            _unpadded(array, frame.n_images, frame.n, lead + tail)
            for array, tail in ((means2d, (2,)), (conics, (3,)), (depths, ()), (view_opacities, ()), (radii, (2,)))
        ]
        per_chunk = counts.reshape(-1, 2)
        n_visible, max_pairs = per_chunk.sum(0).tolist()
        if max_pairs >= 2**31:
            raise ValueError(f"scales: expected fewer than 2**31 (tile, Gaussian) pairs in a call, got {max_pairs}")
        starts = as_array(torch.from_numpy(np.cumsum(per_chunk, 0) - per_chunk))
        splats = as_array(_unpadded(splats, frame.n_images, frame.n, (-1, projection.SPLAT)))
        handover.append(Footprints(splats, as_array(results[4]), starts, n_visible, max_pairs))
        ctx.save_for_backward(means, quats, scales, opacities, viewmats, Ks, results[1], results[4])
        ctx.frame = frame
        ctx.mark_non_differentiable(results[4])
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx, v_means2d, v_conics, v_depths, v_opacities, _):
        frame: Frame = ctx.frame
        means, quats, scales, opacities, viewmats, Ks, conics, radii = ctx.saved_tensors
        lead = (*frame.batch, frame.n_cameras, frame.n)
        given = ((v_means2d, (2,)), (v_conics, (3,)), (v_depths, ()), (v_opacities, ()))
        gradients = [torch.zeros(lead + tail) if v is None else v for v, tail in given]
        per_image = (frame.n_images, frame.n)
        n_rows, n_padded = frame.n_scenes * max(frame.n, LANES), max(frame.n, LANES)
        outputs = tuple(np.empty(n_rows * k, np.float32) for k in (3, 4, 3, 1))
        v_views = np.empty(frame.n_images * frame.n_chunks * 12 * LANES, np.float32)
        workspace = Workspace()
        scratch = workspace.rows(frame.project_threads, 11 * projection.CHUNK, np.float32)
        run_kernel(
            projection.project_backward, frame.project_threads,
            new_progress(1), (frame.n_scenes, frame.n_cameras, n_padded),
            *_f32(frame.width, frame.height, frame.eps2d), frame.antialiased,
            _project_inputs(frame, means, quats, scales, opacities), as_array(viewmats), as_array(Ks),
            tuple(_padded_rows(t, *per_image) for t in (conics, radii)),
            tuple(_padded_rows(t, *per_image) for t in gradients), outputs, v_views, scratch,
        )  # fmt: skip
        workspace.release()
        v_means, v_quats, v_scales, v_opacities = (
            _unpadded(array, frame.n_scenes, frame.n, tensor.shape)
            for array, tensor in zip(outputs, (means, quats, scales, opacities), strict=True)
        )
        v_viewmats = torch.zeros_like(viewmats)
        sums = v_views.reshape(frame.n_images, frame.n_chunks, 12, LANES).sum((1, 3), dtype=np.float64)
        v_viewmats[..., :3, :] = torch.from_numpy(sums.astype(np.float32)).view(*viewmats.shape[:-2], 3, 4)
        return v_means, v_quats, v_scales, v_opacities, v_viewmats, None, None, None


class _Drawn:
    """What the backward pass of blending needs of the forward pass: arrays in a workspace of their own."""

    def __init__(self, frame: Frame, footprints: Footprints):
        self.workspace = Workspace()
        empty = self.workspace.empty
        pixels = frame.n_tiles * blending_forward.TILE_PIXELS
        self.pair_starts = empty(2 * frame.n_images * frame.n, np.int32)
        self.tile_starts = empty(frame.n_tiles + 1, np.int32)
        self.tile_ends = empty(frame.n_tiles, np.int32)
        self.pairs = empty(2 * footprints.max_pairs, np.int32)
        block_masks = empty(footprints.max_pairs, np.uint16)
        self.state = (block_masks, empty(pixels, np.float32), empty(pixels, np.int32))


class Blend(torch.autograd.Function):
    """Footprints, features and backgrounds -> renders (..., C, H, W, X) and alphas (..., C, H, W, 1)."""

    @staticmethod
    def forward(
        ctx, means2d, conics, opacities, depths, colors, backgrounds, colors_per_view, render_mode, frame, footprints
    ):
        with_depth = render_mode != "RGB"
        expected_depth = render_mode.endswith("ED")
        color_channels = 0 if colors is None else colors.shape[-1]
        channels = color_channels + with_depth
        options = (channels, -(-channels // 4) * 4, expected_depth)
        color_array = np.zeros(1, np.float32) if colors is None else as_array(colors)
        scene = (color_array, as_array(depths), color_channels, with_depth, colors_per_view)
        background = np.zeros((frame.n_images, channels), np.float32)
        if backgrounds is not None and color_channels:
            background[:, :color_channels] = backgrounds.detach().reshape(frame.n_images, -1).numpy()
        background = background.reshape(-1)

        drawn = _Drawn(frame, footprints)
        lead = (*frame.batch, frame.n_cameras, frame.height, frame.width)
        renders, alphas = torch.empty(*lead, channels), torch.empty(*lead, 1)
        _run_forward(frame, footprints, drawn, scene, background, options, (as_array(renders), as_array(alphas)))
        ctx.save_for_backward(means2d, conics, opacities, renders, alphas)
        ctx.kept = (frame, footprints.splats, drawn, scene, background, options)
        ctx.colors_shape = None if colors is None else colors.shape
        return renders, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx, v_renders, v_alphas):
        means2d, conics, opacities, renders, alphas = ctx.saved_tensors
        frame, splats, drawn, scene, background, options = ctx.kept
        _, _, color_channels, with_depth, _ = scene
        v_means2d, v_conics, v_opacities = (torch.empty_like(t) for t in (means2d, conics, opacities))
        v_means2d_abs = torch.empty_like(means2d) if frame.absgrad else torch.empty(1)
        v_colors = torch.empty(1) if ctx.colors_shape is None else torch.empty(ctx.colors_shape)
        v_depths = torch.empty_like(opacities) if with_depth else torch.empty(1)
        expected_depths = as_array(renders[..., -1]) if options[2] else np.zeros(1, np.float32)
        n_threads, padded_channels = frame.blend_threads, options[1]

        workspace = Workspace()
        row_size = blending_backward.MOMENTS + padded_channels
        rows = workspace.empty(drawn.state[0].size * row_size, np.float32)
        floats, ints = blending_backward.scratch_sizes(padded_channels)
        outputs = tuple(as_array(t) for t in (v_means2d, v_conics, v_opacities, v_means2d_abs))
        run_kernel(
            blending_backward.blend_backward, n_threads,
            new_progress(2), frame.tiling, frame.n_cameras, (frame.width, frame.height), frame.tiles_at_once,
            frame.absgrad, splats, (drawn.pair_starts, drawn.tile_starts, drawn.pairs), scene, background, options,
            drawn.state, drawn.tile_ends, (as_array(v_renders), as_array(v_alphas), expected_depths),
            (as_array(conics), as_array(opacities)), outputs, (as_array(v_colors), as_array(v_depths)), rows,
            workspace.rows(n_threads, floats, np.float32), workspace.rows(n_threads, ints, np.int32),
        )  # fmt: skip
        workspace.release()
        if frame.absgrad:
            means2d.absgrad = v_means2d_abs
        v_backgrounds = None
        if ctx.needs_input_grad[5]:
            v_backgrounds = torch.einsum(
                "...hwk,...hw->...k", v_renders[..., :color_channels], 1.0 - alphas[..., 0]
            )
        return (
            v_means2d, v_conics, v_opacities, v_depths if with_depth else None,
            None if ctx.colors_shape is None else v_colors, v_backgrounds, None, None, None, None,
        )  # fmt: skip


def _run_forward(frame, footprints, drawn, scene, background, options, images) -> None:
    n_threads = frame.blend_threads
    workspace = Workspace()
    empty = workspace.empty
    floats, ints = blending_forward.scratch_sizes(options[1])
    binning = (
        footprints.chunk_starts, empty(footprints.max_pairs, np.int32), drawn.pair_starts,
        empty(footprints.n_visible, np.int64), empty(footprints.n_visible, np.int64),
        empty(n_threads * RADIX, np.int32), empty(n_threads * frame.n_tiles, np.int32), drawn.tile_starts,
        drawn.pairs,
    )  # fmt: skip
    run_kernel(
        blending_forward.blend_forward, n_threads,
        new_progress(BINNING_STAGES + 1), frame.tiling, frame.n_cameras, (frame.width, frame.height), n_threads,
        frame.tiles_at_once, (footprints.splats, footprints.radii, scene[1].view(np.uint32)), binning, scene,
        background, options, drawn.state, drawn.tile_ends, images,
        workspace.rows(n_threads, floats, np.float32), workspace.rows(n_threads, ints, np.int32),
    )  # fmt: skip
    workspace.release()
