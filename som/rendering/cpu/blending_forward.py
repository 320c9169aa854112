"""Drawing the tiles, front to back.

A tile has 16 blocks of 4 x 4 pixels; one block is one register, one lane a pixel. Per tile and portion of at most
PORTION footprints:

1. *gather* the footprints' numbers and colours into a small cache;
2. *list* for each block the footprints that touch it: 16 blocks are tested at once, which gives one 16-bit mask per
   footprint (kept for the backward pass), and the masks are turned into one list per block;
3. per block, *weights*: along the list, w_i = alpha_i T_i and T_(i+1) = T_i (1 - alpha_i), four footprints at a time
   (their alphas do not depend on one another, only T does);
4. per block, *colours*: sum of w_i c_i, eight channels at a time. Being apart from the weights, this works for any
   number of channels with the same code.

A pixel *stops* at the first footprint that would bring its T to 1e-4 or below: that one and all behind it are left
out. This is rare (once per pixel at most), so step 3 runs without looking at single pixels and does a group of four
over again, carefully, if some pixel stopped in it. From then on that pixel has T = 0 in the register, which makes its
weights 0; its true T and where it stopped are kept in memory.

alpha = min(0.999, 2^e) with e = log2(opacity) - (A dx^2 + B dx dy + C dy^2), and 0 where e < log2(1/255). There, e is
raised to log2(1/255) before it is exponentiated: denormal numbers would be slow.
"""

from __future__ import annotations

import numpy as np

from som.rendering.cpu.binning import BINNING_STAGES, bin_footprints, touched_rectangles
from som.rendering.cpu.cache import helper, kernel
from som.rendering.cpu.projection import LOG2_MIN_ALPHA, SPLAT, f32
from som.rendering.cpu.simd import (
    LANES,
    add_weighted_numbers,
    broadcast,
    broadcast_int,
    compress_store,
    copy4,
    exp2,
    get,
    has_bit,
    join,
    lane_columns,
    lane_numbers,
    lane_rows,
    load,
    load_broadcast,
    mask_bits,
    mask_from_bits,
    maximum,
    minimum,
    multiply_add,
    negative_multiply_add,
    prefetch,
    put,
    split,
    store,
    store_grid,
    store_grid4,
    trailing_zeros,
    where,
    where_int,
)
from som.rendering.cpu.threads import claim, enter, finish, wait_for

PORTION = 128
LIST = PORTION + 32
"""Room per block list: compress_store writes 16 at a time, and lists are padded to a multiple of four."""
MAX_ALPHA = f32(0.999)
MIN_TRANSMITTANCE = f32(1e-4)
NEVER = np.int32(2**31 - 1)
"""Where a pixel stopped that did not stop."""
BLOCKS = 16
TILE_PIXELS = 256


def scratch_sizes(padded_channels: int) -> tuple[int, int]:
    """Float32 and int32 numbers of scratch memory per thread: see :func:`split_scratch`."""
    floats = (PORTION + 1) * (SPLAT + padded_channels) + (PORTION + 8) * LANES + TILE_PIXELS * padded_channels
    return floats + LANES, BLOCKS * LIST + PORTION + 64


@helper
def split_scratch(floats, ints, padded_channels):
    """(cached splats, cached colours, weights, sums per block and channel; lists, masks, list lengths)."""
    a = (PORTION + 8) * LANES
    b = a + TILE_PIXELS * padded_channels + LANES
    c = b + (PORTION + 1) * SPLAT
    d = BLOCKS * LIST
    return floats[b:c], floats[c:], floats[:a], floats[a:b], ints[:d], ints[d : d + PORTION + 16], ints[-BLOCKS:]


@helper
def prepare_scratch(scratch):
    """Before a thread's first tile, and only once it has claimed one: memory of a finished call is not its own."""
    cached, cached_colors = scratch[0], scratch[1]
    cached_colors[:] = f32(0.0)
    cached[PORTION * SPLAT :] = f32(0.0)
    put(cached, PORTION * SPLAT + 5, f32(-1e4))  # the footprint that is never seen: its log2 of opacity


@helper
def gather_colors(p, color_row, colors, depths, channels, with_depth, cached, at):
    """The channels of one footprint, with the depth as the last one if wanted."""
    k = 0
    source = color_row * channels
    while k + 4 <= channels:
        copy4(cached, at + k, colors, source + k)
        k += 4
    while k < channels:
        put(cached, at + k, get(colors, source + k))
        k += 1
    if with_depth:
        put(cached, at + channels, get(depths, p))


@helper
def gather_portion(first, count, pairs, last_pair, scene, color_shift, padded_channels, cached, cached_colors):
    """Step 1, and prefetching of the portion after."""
    splats, colors, depths, channels, with_depth = scene
    for i in range(count):
        p = get(pairs, 2 * (first + i))
        ahead = get(pairs, 2 * min(first + PORTION + i, last_pair))
        prefetch(splats, ahead * SPLAT)
        prefetch(colors, (ahead + color_shift) * channels)
        copy4(cached, i * SPLAT, splats, p * SPLAT)
        copy4(cached, i * SPLAT + 4, splats, p * SPLAT + 4)
        gather_colors(p, p + color_shift, colors, depths, channels, with_depth, cached_colors, i * padded_channels)


@helper
def list_blocks(first, count, left, top, cached, block_masks, masks, lists, lengths):
    """Step 2: masks of the portion's footprints, and from them the list of each block."""
    for block in range(BLOCKS):
        put(lengths, block, 0)
    store(masks, count & ~15, broadcast_int(0))
    x0, y0 = broadcast(left), broadcast(top)
    for i in range(count):
        row = i * SPLAT
        x, y = load_broadcast(cached, row, 0), load_broadcast(cached, row, 1)
        bits = touched_rectangles(x0, y0, 4.0, 3.0, cached, row, x, y)
        put(block_masks, first + i, bits)
        put(masks, i, bits)
    for i in range(0, count, LANES):
        mask = load(masks, i)
        numbers = lane_numbers(i)
        for block in range(BLOCKS):
            length = get(lengths, block)
            found = compress_store(lists, block * LIST + length, numbers, has_bit(mask, block))
            put(lengths, block, length + found)


@helper
def stop_at(index, alpha, T, true_T, stop):
    """One footprint, pixel by pixel: (weight, T, true T, where it stopped)."""
    after = negative_multiply_add(alpha, T, T)
    goes_on = after > MIN_TRANSMITTANCE
    stop = where_int((T > 0.0) & (after <= MIN_TRANSMITTANCE), broadcast_int(index), stop)
    return where(goes_on, alpha * T, 0.0), where(goes_on, after, 0.0), where(goes_on, after, true_T), stop


@helper
def stop_pixels(first, items, alphas, T, weights, weights_at, final, stopped, at):
    """A group of four in which some pixel stops: its weights again, and what is kept of the pixel."""
    true_T = where(T > 0.0, T, load(final, at))
    stop = load(stopped, at)
    alpha0, alpha1, alpha2, alpha3 = split(alphas)
    weight0, T, true_T, stop = stop_at(first + items[0], alpha0, T, true_T, stop)
    weight1, T, true_T, stop = stop_at(first + items[1], alpha1, T, true_T, stop)
    weight2, T, true_T, stop = stop_at(first + items[2], alpha2, T, true_T, stop)
    weight3, T, true_T, stop = stop_at(first + items[3], alpha3, T, true_T, stop)
    store(weights, weights_at, join((weight0, weight1, weight2, weight3)))
    store(final, at, true_T)
    store(stopped, at, stop)
    return T


@helper
def block_weights(first, list_at, length, x, y, cached, lists, weights, final, stopped, at, T):
    """Step 3: writes the weights of a block's list; returns T (0 where stopped) and how much of the list was used."""
    living = mask_bits(T > 0.0)
    j = 0
    while j < length:
        k = list_at + j
        items = (get(lists, k), get(lists, k + 1), get(lists, k + 2), get(lists, k + 3))
        rows = (items[0] * SPLAT, items[1] * SPLAT, items[2] * SPLAT, items[3] * SPLAT)
        dx = load_broadcast(cached, rows, 0) - x
        dy = load_broadcast(cached, rows, 1) - y
        vertical = negative_multiply_add(load_broadcast(cached, rows, 4) * dy, dy, load_broadcast(cached, rows, 5))
        mixed = multiply_add(load_broadcast(cached, rows, 2), dx, load_broadcast(cached, rows, 3) * dy)
        exponent = negative_multiply_add(dx, mixed, vertical)
        alphas = minimum(exp2(maximum(exponent, LOG2_MIN_ALPHA)), MAX_ALPHA)
        alphas = where(exponent >= LOG2_MIN_ALPHA, alphas, 0.0)
        alpha0, alpha1, alpha2, alpha3 = split(alphas)
        T1 = negative_multiply_add(alpha0, T, T)
        T2 = negative_multiply_add(alpha1, T1, T1)
        T3 = negative_multiply_add(alpha2, T2, T2)
        T4 = negative_multiply_add(alpha3, T3, T3)
        store(weights, j * LANES, alphas * join((T, T1, T2, T3)))
        still = mask_bits(T4 > MIN_TRANSMITTANCE)
        if still != living:
            T4 = stop_pixels(first, items, alphas, T, weights, j * LANES, final, stopped, at)
            living = mask_bits(T4 > 0.0)
        T = T4
        j += 4
        if living == 0:
            break
    return T, min(j, length)


@helper
def four_rows(at, step):
    """Offsets of four registers."""
    return (at, at + step, at + 2 * step, at + 3 * step)


@helper
def eight_rows(at, step):
    """Offsets of eight registers."""
    return (
        at, at + step, at + 2 * step, at + 3 * step, at + 4 * step, at + 5 * step, at + 6 * step, at + 7 * step
    )  # fmt: skip


@helper
def add_colors(length, list_at, lists, weights, cached_colors, padded_channels, sums, at):
    """Step 4: sums[channel] += sum over the list of weight * colour."""
    channel = 0
    while channel + 8 <= padded_channels:
        to = at + channel * LANES
        total = load(sums, eight_rows(to, LANES))
        for j in range(length):
            color = get(lists, list_at + j) * padded_channels + channel
            total = add_weighted_numbers(total, load(weights, j * LANES), cached_colors, color)
        store(sums, to, total)
        channel += 8
    if channel < padded_channels:
        to = at + channel * LANES
        total4 = load(sums, four_rows(to, LANES))
        for j in range(length):
            color = get(lists, list_at + j) * padded_channels + channel
            total4 = add_weighted_numbers(total4, load(weights, j * LANES), cached_colors, color)
        store(sums, to, total4)


@helper
def pixels_inside(block, left, top, width, height):
    """Bits of the pixels of a block that belong to the image; left, top: the tile's first pixel."""
    columns = min(max(width - (left + (block & 3) * 4), 0), 4)
    rows = min(max(height - (top + (block >> 2) * 4), 0), 4)
    return ((1 << columns) - 1) * 0x1111 & ((1 << (4 * rows)) - 1)


@helper
def blend_tile(
    tile, left, top, size, pair_range, pairs, scene, color_shift, padded_channels, state, scratch
):  # fmt: skip
    """One tile; returns where in the list it ended (all its pixels stopped, or the list ran out)."""
    width, height = size
    block_masks, transmittances, stopped = state
    cached, cached_colors, weights, sums, lists, masks, lengths = scratch
    start, end, last_pair = pair_range
    living = 0
    for block in range(BLOCKS):
        at = tile * TILE_PIXELS + block * LANES
        if pixels_inside(block, left, top, width, height) != 0:
            living |= 1 << block
        store(transmittances, at, broadcast(1.0))
        store(stopped, at, broadcast_int(NEVER))
        for channel in range(padded_channels):
            store(sums, (block * padded_channels + channel) * LANES, broadcast(0.0))
    first = start
    while first < end and living != 0:
        count = min(PORTION, end - first)
        gather_portion(first, count, pairs, last_pair, scene, color_shift, padded_channels, cached, cached_colors)
        list_blocks(first, count, f32(left) + f32(0.5), f32(top) + f32(0.5), cached, block_masks, masks, lists, lengths)
        for block in range(BLOCKS):
            length = get(lengths, block)
            if length == 0 or (living >> block) & 1 == 0:
                continue
            list_at = block * LIST
            store(lists, list_at + length, broadcast_int(PORTION))  # padding: the footprint that is never seen
            at = tile * TILE_PIXELS + block * LANES
            x = lane_columns() + (f32(left + (block & 3) * 4) + f32(0.5))
            y = lane_rows() + (f32(top + (block >> 2) * 4) + f32(0.5))
            before = load(transmittances, at)
            stop = load(stopped, at)
            inside = mask_from_bits(pixels_inside(block, left, top, width, height)) & (stop >= NEVER)
            T, used = block_weights(
                first, list_at, length, x, y, cached, lists, weights, transmittances, stopped, at,
                where(inside, before, 0.0),
            )  # fmt: skip
            store(transmittances, at, where(T > 0.0, T, load(transmittances, at)))
            if mask_bits(T > 0.0) == 0:
                living &= ~(1 << block)
            sums_at = block * padded_channels * LANES
            add_colors(used, list_at, lists, weights, cached_colors, padded_channels, sums, sums_at)
        first += count
    return first


@helper
def write_tile(tile, image, left, top, size, images, backgrounds, options, sums, transmittances):
    """From sums and transmittances to the images: adds the background, divides the depth, one pixel after another."""
    width, height = size
    renders, alphas = images
    channels, padded_channels, expected_depth = options
    for block in range(BLOCKS):
        x, y = left + (block & 3) * 4, top + (block >> 2) * 4
        bits = pixels_inside(block, left, top, width, height)
        if bits == 0:
            continue
        T = load(transmittances, tile * TILE_PIXELS + block * LANES)
        alpha = 1.0 - T
        at = block * padded_channels * LANES
        for channel in range(channels):
            value = load(sums, at + channel * LANES)
            value = multiply_add(T, load_broadcast(backgrounds, image * channels, channel), value)
            if expected_depth and channel == channels - 1:
                value = value / maximum(alpha, 1e-10)
            store(sums, at + channel * LANES, value)
        pixel = (image * height + y) * width + x
        if bits == 0xFFFF:
            write_block(renders, pixel, width, channels, sums, at)
            store_grid(alphas, pixel, width, 1, alpha)
        else:
            # All tiles of a thread share ``sums``; its last 16 numbers are free for this.
            store(sums, sums.shape[0] - LANES, alpha)
            write_partial_block(renders, alphas, pixel, width, channels, sums, at, bits)


@helper
def write_block(renders, pixel, width, channels, sums, at):
    """A block that lies inside the image: four channels at a time, then one by one."""
    channel = 0
    while channel + 4 <= channels:
        four = load(sums, four_rows(at + channel * LANES, LANES))
        store_grid4(renders, pixel * channels + channel, width * channels, channels, four)
        channel += 4
    while channel < channels:
        one = load(sums, at + channel * LANES)
        store_grid(renders, pixel * channels + channel, width * channels, channels, one)
        channel += 1


@helper
def write_partial_block(renders, alphas, pixel, width, channels, sums, at, bits):
    """A block at the edge of the image, pixel by pixel."""
    while bits != 0:
        lane = trailing_zeros(bits)
        bits &= bits - 1
        target = pixel + (lane >> 2) * width + (lane & 3)
        for channel in range(channels):
            put(renders, target * channels + channel, get(sums, at + channel * LANES + lane))
        put(alphas, target, get(sums, sums.shape[0] - LANES + lane))


@kernel
def blend_forward(
    progress, tiling, n_cameras, size, n_parts, tiles_at_once, footprints, binning, scene, backgrounds, options,
    state, tile_ends, images, float_scratch, int_scratch,
):  # fmt: skip
    """Bins and draws all images.

    ``tiling``: (images, footprints per image, tiles across, tiles down); ``footprints``: (splats, radii, depth bits);
    ``binning``: the arrays of :func:`bin_footprints`; ``scene``: (colours, depths, channels of the colours, whether
    depth is the last channel, whether each image has its own colours); ``state``: (block masks per pair,
    transmittances and stops per pixel, tile after tile), kept for the backward pass like ``tile_ends``.
    """
    worker = enter(progress)
    n_images, n, tiles_x, tiles_y = tiling
    splats, radii, depth_bits = footprints
    chunk_starts, pair_tiles, pair_starts, items, items_b, digit_counts, tile_counts, tile_starts, pairs = binning
    colors, depths, color_channels, with_depth, colors_per_view = scene
    padded_channels = options[1]
    bin_footprints(
        progress, tiling, n_parts, splats, radii, depth_bits, chunk_starts, pair_tiles, pair_starts, items, items_b,
        digit_counts, tile_counts, tile_starts, pairs,
    )  # fmt: skip

    scratch = split_scratch(float_scratch[worker], int_scratch[worker], padded_channels)
    per_image = tiles_x * tiles_y
    n_tiles = n_images * per_image
    n_batches = (n_tiles + tiles_at_once - 1) // tiles_at_once
    last_pair = max(get(tile_starts, n_tiles) - 1, 0)
    prepared = False
    while True:
        batch = claim(progress, BINNING_STAGES)
        if batch >= n_batches:
            break
        if not prepared:
            prepare_scratch(scratch)
            prepared = True
        for tile in range(batch * tiles_at_once, min((batch + 1) * tiles_at_once, n_tiles)):
            image = tile // per_image
            left, top = tile % per_image % tiles_x * 16, tile % per_image // tiles_x * 16
            color_shift = 0 if colors_per_view else (image // n_cameras - image) * n
            pair_range = (get(tile_starts, tile), get(tile_starts, tile + 1), last_pair)
            end = blend_tile(
                tile, left, top, size, pair_range, pairs, (splats, colors, depths, color_channels, with_depth),
                color_shift, padded_channels, state, scratch,
            )  # fmt: skip
            put(tile_ends, tile, end)
            write_tile(tile, image, left, top, size, images, backgrounds, options, scratch[3], state[1])
        finish(progress, BINNING_STAGES)
    wait_for(progress, BINNING_STAGES, n_batches)
