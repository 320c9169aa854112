"""Gradients of the drawn tiles, back to front.

A pixel's results are C = sum_i c_i w_i + T_end b with w_i = alpha_i T_i, and alpha_out = 1 - T_end. With v the
gradient of the loss to C and v_a that to alpha_out, write d_i = c_i . v and

    S_i = sum_(j > i) w_j d_j + T_end (b . v - v_a),

"(the colour behind i) . v". Both w_j and T_end contain the factor (1 - alpha_i), hence

    dL/dalpha_i = T_i d_i - S_i / (1 - alpha_i),      dL/dc_i = w_i v.

So one number S per pixel, updated as S += w_i d_i from back to front, replaces the vector of colours behind (as kept
by 3DGS and gsplat), whatever the number of channels. T_i is recovered as T_(i+1) / (1 - alpha_i).

With sigma the exponent, alpha = o e^-sigma, g = alpha dL/dalpha = -dL/dsigma, and (dx, dy) = mean - pixel, everything
that a footprint's mean, conic (A, B, C) and opacity need are six sums over pixels:

    m = sum g (1, dx, dy, dx^2, dx dy, dy^2),
    v_o = m_0 / o,   v_mean = -(A m_1 + B m_2, B m_1 + C m_2),   v_conic = -(m_3 / 2, m_4, m_5 / 2).

Where alpha was clamped to 0.999 it does not depend on these, and g = 0.

Order of work. Per tile the footprints are the outer loop and the blocks they touch (bits of the mask kept by the
forward pass) the inner one, two blocks at a time, with the moments and the first four colour channels in registers;
further channels follow in a loop of their own, from the weights written down. A footprint's sums over the tile go to
one row of ``rows``, in the slot of that (tile, footprint) pair; no two threads write to one place. Afterwards the rows
of each footprint, which lie side by side, are added up: no atomic additions, and the same result for any number of
threads.
"""

from __future__ import annotations

import numpy as np

from som.rendering.cpu.blending_forward import (
    BLOCKS,
    MAX_ALPHA,
    TILE_PIXELS,
    four_rows,
    gather_colors,
    pixels_inside,
)
from som.rendering.cpu.cache import helper, kernel
from som.rendering.cpu.projection import CHUNK, LOG2_E, LOG2_MIN_ALPHA, SPLAT, f32
from som.rendering.cpu.simd import (
    LANES,
    absolute,
    add4,
    add_products,
    add_weighted_rows,
    broadcast,
    broadcast_int,
    exp2,
    four_products,
    get,
    join,
    lane_columns,
    lane_rows,
    load,
    load_broadcast,
    load_grid,
    load_grid4,
    mask_bits,
    maximum,
    minimum,
    multiply_add,
    negative_multiply_add,
    prefetch,
    put,
    reciprocal,
    split,
    store,
    store_at,
    store_lane_sums,
    sum_registers,
    trailing_zeros,
    where,
    zero4,
    zeros,
)
from som.rendering.cpu.threads import claim, enter, finish, wait_for

PADDED = TILE_PIXELS + LANES
"""Pixels of a tile and one more block, which sees nothing: it makes an odd number of blocks even."""
MOMENTS = 8
"""Numbers before the colours in a row: six moments, and the sums of |v_mean| for absgrad."""


def scratch_sizes(padded_channels: int) -> tuple[int, int]:
    """Float32 and int32 numbers of scratch memory per thread: see :func:`split_scratch`."""
    return (4 + padded_channels) * PADDED + (BLOCKS + 2) * LANES + 2 * (padded_channels + MOMENTS + 8), PADDED + 64


@helper
def split_scratch(floats, ints, padded_channels):
    """((pixel x, pixel y, T, S, gradients by channel), (weights of the blocks, colours, sums of rows),
    (where pixels stopped, where blocks stopped, blocks used))."""
    a = (4 + padded_channels) * PADDED
    b = a + (BLOCKS + 2) * LANES
    c = b + padded_channels + 8
    pixels = (
        floats[:PADDED], floats[PADDED : 2 * PADDED], floats[2 * PADDED : 3 * PADDED],
        floats[3 * PADDED : 4 * PADDED], floats[4 * PADDED : a],
    )  # fmt: skip
    stops = (ints[:PADDED], ints[PADDED : PADDED + BLOCKS], ints[PADDED + BLOCKS :])
    return pixels, (floats[a:b], floats[b:c], floats[c:]), stops


@helper
def prepare_scratch(scratch):
    """Before a thread's first tile, and only once it has claimed one: memory of a finished call is not its own.

    Zeros everywhere, which stay in the padding channels and in the block that sees nothing, save that its T is 1."""
    (xs, ys, Ts, Ss, v), (_, cached_color, _), (pixel_stops, _, _) = scratch
    xs[:] = f32(0.0)
    ys[:] = f32(0.0)
    Ts[:] = f32(1.0)
    Ss[:] = f32(0.0)
    v[:] = f32(0.0)
    cached_color[:] = f32(0.0)
    pixel_stops[:] = np.int32(-1)


@helper
def zero_row(rows, slot, row_size):
    for k in range(0, row_size, 4):
        zero4(rows, slot * row_size + k)


@helper
def load_block(q, pixel, width, channels, v_renders, v_alphas, v):
    """Gradients of a block inside the image to channel-major v; returns those of its alphas."""
    channel = 0
    while channel + 4 <= channels:
        four = load_grid4(v_renders, pixel * channels + channel, width * channels, channels)
        store_at(v, four_rows(channel * PADDED + q, PADDED), four)
        channel += 4
    while channel < channels:
        one = load_grid(v_renders, pixel * channels + channel, width * channels, channels)
        store(v, channel * PADDED + q, one)
        channel += 1
    return load_grid(v_alphas, pixel, width, 1)


@helper
def load_partial_block(q, pixel, width, channels, v_renders, v_alphas, v, bits, spare):
    """The same at the edge of the image; pixels outside have gradient 0."""
    for channel in range(channels):
        store(v, channel * PADDED + q, broadcast(0.0))
    store(spare, 0, broadcast(0.0))
    while bits != 0:
        lane = trailing_zeros(bits)
        bits &= bits - 1
        source = pixel + (lane >> 2) * width + (lane & 3)
        for channel in range(channels):
            put(v, channel * PADDED + q + lane, get(v_renders, source * channels + channel))
        put(spare, lane, get(v_alphas, source))
    return load(spare, 0)


@helper
def load_pixel(lanes_of, source, bits, width, spare):
    """One number per pixel of a block, 0 outside the image."""
    store(spare, 0, broadcast(0.0))
    while bits != 0:
        lane = trailing_zeros(bits)
        bits &= bits - 1
        put(spare, lane, get(lanes_of, source + (lane >> 2) * width + (lane & 3)))
    return load(spare, 0)


@helper
def prepare_tile(tile, image, left, top, size, gradients, backgrounds, options, state, pixels, spare, stops):
    """Fills the thread's tables for one tile: positions, T, S, gradients, and where pixels and blocks stopped."""
    width, height = size
    v_renders, v_alphas, expected_depths = gradients
    channels, _, expected_depth = options
    _, transmittances, stopped = state
    xs, ys, Ts, Ss, v = pixels
    pixel_stops, block_stops, _ = stops
    for block in range(BLOCKS):
        q = block * LANES
        x, y = left + (block & 3) * 4, top + (block >> 2) * 4
        store(xs, q, lane_columns() + (f32(x) + f32(0.5)))
        store(ys, q, lane_rows() + (f32(y) + f32(0.5)))
        T = load(transmittances, tile * TILE_PIXELS + q)
        store(Ts, q, T)
        store(pixel_stops, q, load(stopped, tile * TILE_PIXELS + q))
        latest = np.int64(-1)
        for lane in range(LANES):
            latest = max(latest, get(pixel_stops, q + lane))
        put(block_stops, block, latest)
        bits = pixels_inside(block, left, top, width, height)
        pixel = (image * height + y) * width + x
        if bits == 0xFFFF:
            v_alpha = load_block(q, pixel, width, channels, v_renders, v_alphas, v)
        else:
            v_alpha = load_partial_block(q, pixel, width, channels, v_renders, v_alphas, v, bits, spare)
        if expected_depth:
            # E = D / max(alpha, 1e-10): v_D = v_E / alpha, and -v_E E / alpha more for alpha
            at = (channels - 1) * PADDED + q
            alpha = 1.0 - T
            v_depth = load(v, at) / maximum(alpha, 1e-10)
            expected = load_pixel(expected_depths, pixel, bits, width, spare)
            v_alpha = v_alpha - where(alpha >= 1e-10, v_depth * expected, 0.0)
            store(v, at, v_depth)
        behind = -v_alpha
        for channel in range(channels):
            background = load_broadcast(backgrounds, image * channels, channel)
            behind = multiply_add(background, load(v, channel * PADDED + q), behind)
        store(Ss, q, behind * T)


@helper
def backward_footprint(i, row, bits, splats, absgrad, padded_channels, pixels, weights, colors, stops, rows, row_at):
    """One footprint in the blocks of ``bits``: updates T and S, and writes its row."""
    xs, ys, Ts, Ss, v = pixels
    pixel_stops, _, used = stops
    mean_x, mean_y = load_broadcast(splats, row, 0), load_broadcast(splats, row, 1)
    a, b, c = load_broadcast(splats, row, 2), load_broadcast(splats, row, 3), load_broadcast(splats, row, 4)
    log2_opacity = load_broadcast(splats, row, 5)
    index = broadcast_int(i)
    # One register each, not one per block: more would not fit into the processor.
    m, m_x, m_y, m_xx, m_xy, m_yy = zeros(1), zeros(1), zeros(1), zeros(1), zeros(1), zeros(1)
    abs_x, abs_y = zeros(1), zeros(1)
    v_color = zeros(4)
    n_used = 0
    while bits != 0:
        q0 = trailing_zeros(bits) * LANES
        bits = (bits & (bits - 1)) | 1 << BLOCKS  # if none is left, the second one is the block that sees nothing
        q1 = trailing_zeros(bits) * LANES
        bits = bits & (bits - 1) & 0xFFFF
        q = (q0, q1)
        dx, dy = mean_x - load(xs, q), mean_y - load(ys, q)
        vertical = negative_multiply_add(c * dy, dy, log2_opacity)
        exponent = negative_multiply_add(dx, multiply_add(a, dx, b * dy), vertical)
        counts = (exponent >= LOG2_MIN_ALPHA) & (index < load(pixel_stops, q))
        unclamped = exp2(maximum(exponent, LOG2_MIN_ALPHA))
        alpha = where(counts, minimum(unclamped, MAX_ALPHA), 0.0)
        inverse = reciprocal(1.0 - alpha)
        T = load(Ts, q) * inverse
        weight = alpha * T
        d = four_products(v, q, PADDED, colors, 0)
        for channel in range(4, padded_channels, 4):
            d = d + four_products(v, (channel * PADDED + q0, channel * PADDED + q1), PADDED, colors, channel)
        S = load(Ss, q)
        g = where(unclamped <= MAX_ALPHA, alpha, 0.0) * negative_multiply_add(inverse, S, T * d)
        store_at(Ts, q, T)
        store_at(Ss, q, multiply_add(weight, d, S))
        weight0, weight1 = split(weight)
        v_color = add_weighted_rows(v_color, weight0, v, q0, PADDED)
        v_color = add_weighted_rows(v_color, weight1, v, q1, PADDED)
        store(weights, n_used * LANES, weight)
        put(used, n_used, q0)
        put(used, n_used + 1, q1)
        n_used += 2
        g_x, g_y = g * dx, g * dy
        m, m_x, m_y = m + sum_registers(g), m_x + sum_registers(g_x), m_y + sum_registers(g_y)
        m_xx, m_xy, m_yy = add_products(m_xx, g_x, dx), add_products(m_xy, g_x, dy), add_products(m_yy, g_y, dy)
        if absgrad:
            abs_x = abs_x + sum_registers(absolute(multiply_add(2.0 * a, g_x, b * g_y)))
            abs_y = abs_y + sum_registers(absolute(multiply_add(b, g_x, 2.0 * c * g_y)))
    c0, c1, c2, c3 = split(v_color)
    moments = join((m, m_x, m_y, m_xx, m_xy, m_yy, abs_x, abs_y, c0, c1, c2, c3))
    store_lane_sums(rows, row_at, moments)
    return n_used


@helper
def color_gradients(n_used, padded_channels, v, weights, used, rows, row_at):
    """Sums over pixels of weight * v for the channels after the first four, eight at a time."""
    channel = 4
    while channel + 8 <= padded_channels:
        total = zeros(8)
        for k in range(n_used):
            at = channel * PADDED + get(used, k)
            total = add_weighted_rows(total, load(weights, k * LANES), v, at, PADDED)
        store_lane_sums(rows, row_at + channel, total)
        channel += 8
    if channel < padded_channels:
        total4 = zeros(4)
        for k in range(n_used):
            at = channel * PADDED + get(used, k)
            total4 = add_weighted_rows(total4, load(weights, k * LANES), v, at, PADDED)
        store_lane_sums(rows, row_at + channel, total4)


@helper
def backward_tile(pair_range, pairs, scene, color_shift, padded_channels, absgrad, block_masks, scratch, rows):
    """All footprints of a tile, back to front."""
    start, end, limit = pair_range
    splats, colors, depths, color_channels, with_depth = scene
    pixels, (weights, cached_color, _), stops = scratch
    row_size = MOMENTS + padded_channels
    block_stops = load(stops[1], 0)
    for i in range(end, limit):  # never drawn: the tile had ended before
        zero_row(rows, get(pairs, 2 * i + 1), row_size)
    for i in range(end - 1, start - 1, -1):
        p, slot = get(pairs, 2 * i), get(pairs, 2 * i + 1)
        bits = mask_bits(broadcast_int(i) < block_stops) & get(block_masks, i)
        if bits == 0:
            zero_row(rows, slot, row_size)
            continue
        ahead = max(i - 8, 0)
        p_ahead = get(pairs, 2 * ahead)
        prefetch(splats, p_ahead * SPLAT)
        prefetch(colors, (p_ahead + color_shift) * color_channels)
        prefetch(rows, get(pairs, 2 * ahead + 1) * row_size)
        gather_colors(p, p + color_shift, colors, depths, color_channels, with_depth, cached_color, 0)
        n_used = backward_footprint(
            i, p * SPLAT, bits, splats, absgrad, padded_channels, pixels, weights, cached_color, stops, rows,
            slot * row_size,
        )  # fmt: skip
        color_gradients(n_used, padded_channels, pixels[4], weights, stops[2], rows, slot * row_size + MOMENTS)


@helper
def reduce_footprint(p, pair_starts, rows, row_size, sums, conics, opacities, outputs, absgrad):
    """Adds up the rows of a footprint and writes the gradients of its mean, conic and opacity."""
    v_means2d, v_conics, v_opacities, v_means2d_abs = outputs
    first, last = get(pair_starts, 2 * p), get(pair_starts, 2 * p + 1)
    for k in range(0, row_size, 4):
        zero4(sums, k)
        for slot in range(first, last):
            add4(sums, k, rows, slot * row_size + k)
    a, b, c = get(conics, 3 * p), get(conics, 3 * p + 1), get(conics, 3 * p + 2)
    m_x, m_y = get(sums, 1), get(sums, 2)
    put(v_means2d, 2 * p, -(a * m_x + b * m_y))
    put(v_means2d, 2 * p + 1, -(b * m_x + c * m_y))
    put(v_conics, 3 * p, f32(-0.5) * get(sums, 3))
    put(v_conics, 3 * p + 1, -get(sums, 4))
    put(v_conics, 3 * p + 2, f32(-0.5) * get(sums, 5))
    put(v_opacities, p, get(sums, 0) / get(opacities, p) if last > first else f32(0.0))
    if absgrad:  # rows hold |2 a dx + b dy| of the form scaled by log2(e)
        put(v_means2d_abs, 2 * p, get(sums, 6) / LOG2_E)
        put(v_means2d_abs, 2 * p + 1, get(sums, 7) / LOG2_E)


@helper
def reduce_chunk(
    first, last, scene_index, n, n_cameras, color_channels, with_depth, colors_per_view, pair_starts, rows, row_size,
    sums, conics, opacities, outputs, v_colors, v_depths, absgrad,
):  # fmt: skip
    """Gaussians first..last of one scene, in all its cameras; shared colours are added up over the cameras."""
    for g in range(first, last):
        for camera in range(n_cameras):
            image = scene_index * n_cameras + camera
            p = image * n + g
            reduce_footprint(p, pair_starts, rows, row_size, sums, conics, opacities, outputs, absgrad)
            to = (p if colors_per_view else scene_index * n + g) * color_channels
            for k in range(color_channels):
                value = get(sums, MOMENTS + k)
                if camera > 0 and not colors_per_view:
                    value += get(v_colors, to + k)
                put(v_colors, to + k, value)
            if with_depth:
                put(v_depths, p, get(sums, MOMENTS + color_channels))


@kernel
def blend_backward(
    progress, tiling, n_cameras, size, tiles_at_once, absgrad, splats, binning, scene, backgrounds, options, state,
    tile_ends, gradients, footprints, outputs, color_outputs, rows, float_scratch, int_scratch,
):  # fmt: skip
    """Gradients of all images to ``outputs`` (means2d, conics, opacities, |means2d|) and ``color_outputs`` (colours,
    depths). ``binning``: (pair_starts, tile_starts, pairs); ``footprints``: (conics, opacities); ``gradients``: those
    of renders and alphas, and the expected depth that was drawn; the rest as in :func:`blend_forward`."""
    worker = enter(progress)
    n_images, n, tiles_x, tiles_y = tiling
    pair_starts, tile_starts, pairs = binning
    colors, depths, color_channels, with_depth, colors_per_view = scene
    padded_channels = options[1]
    scratch = split_scratch(float_scratch[worker], int_scratch[worker], padded_channels)
    pixels, (spare, _, sums), stops = scratch
    per_image = tiles_x * tiles_y
    n_tiles = n_images * per_image
    n_batches = (n_tiles + tiles_at_once - 1) // tiles_at_once
    prepared = False
    while True:
        batch = claim(progress, 0)
        if batch >= n_batches:
            break
        if not prepared:
            prepare_scratch(scratch)
            prepared = True
        for tile in range(batch * tiles_at_once, min((batch + 1) * tiles_at_once, n_tiles)):
            image = tile // per_image
            left, top = tile % per_image % tiles_x * 16, tile % per_image // tiles_x * 16
            color_shift = 0 if colors_per_view else (image // n_cameras - image) * n
            pair_range = (get(tile_starts, tile), get(tile_ends, tile), get(tile_starts, tile + 1))
            if pair_range[0] < pair_range[1]:
                prepare_tile(
                    tile, image, left, top, size, gradients, backgrounds, options, state, pixels, spare, stops
                )
            backward_tile(
                pair_range, pairs, (splats, colors, depths, color_channels, with_depth), color_shift,
                padded_channels, absgrad, state[0], scratch, rows,
            )  # fmt: skip
        finish(progress, 0)
    wait_for(progress, 0, n_batches)

    chunks = (n + CHUNK - 1) // CHUNK
    n_scenes = n_images // n_cameras
    while True:
        chunk = claim(progress, 1)
        if chunk >= n_scenes * chunks:
            break
        first = chunk % chunks * CHUNK
        reduce_chunk(
            first, min(first + CHUNK, n), chunk // chunks, n, n_cameras, color_channels, with_depth, colors_per_view,
            pair_starts, rows, MOMENTS + padded_channels, sums, footprints[0], footprints[1], outputs,
            color_outputs[0], color_outputs[1], absgrad,
        )  # fmt: skip
        finish(progress, 1)
    wait_for(progress, 1, n_scenes * chunks)
