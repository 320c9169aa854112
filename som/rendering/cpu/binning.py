"""Which footprint touches which tile, in order of depth.

The image is cut into tiles of 16 x 16 pixels. Blending wants, for each tile of each image, its footprints from front
to back. Sorting all (tile, footprint) pairs would be slow; instead

1. *emit*: for each visible footprint, in the order of memory, write the tiles it really touches. The pairs of one
   footprint lie side by side, which also gives each pair a *slot*, where its gradient will be put;
2. *depth sort*: footprints of all images together, once, by a radix sort of (depth, index) with 11 bits per pass
   (depths are positive, so their bit patterns are ordered like the numbers; three passes cover all 31 bits);
3. *count and place*: go through the footprints in that order and append each to its tiles (a counting sort, which
   keeps the order). The tiles of all images are numbered through, so the images come apart by themselves.

All three are stable sorts split into consecutive *parts* with a histogram each, hence independent of the number of
threads.

Whether an ellipse {log2 alpha >= log2 1/255} touches a rectangle: the smallest value of the quadratic form on the
rectangle is at the centre if that is inside, else on one of the (at most two) sides that face the centre. On the
vertical line dx it is at dy = -B dx / 2C, clamped to the side; likewise on the horizontal line. 16 rectangles, 4 x 4
side by side, are tested at once: 4 x 4 tiles here, 4 x 4 blocks of a tile when blending.
"""

from __future__ import annotations

import numpy as np

from som.rendering.cpu.cache import helper
from som.rendering.cpu.projection import CHUNK, LOG2_MIN_ALPHA, SPLAT, f32, tile_range
from som.rendering.cpu.simd import (
    broadcast,
    get,
    lane_columns,
    lane_rows,
    load_broadcast,
    mask_bits,
    maximum,
    minimum,
    multiply_add,
    prefetch,
    put,
    trailing_zeros,
)
from som.rendering.cpu.threads import claim, finish, wait_for

RADIX_BITS = 11
RADIX = 1 << RADIX_BITS
DEPTH_SHIFT = 32
"""An item to sort is depth bits << 32 | index of the footprint."""
BINNING_STAGES = 13
"""Stages of a kernel call that binning takes, from 0 on: emit, three passes of three, count, sum, place."""
TOUCH_MARGIN = f32(1e-3)
"""Added to the size of the ellipse (in log2 alpha), so that rounding never loses a pixel."""


@helper
def touched_rectangles(left, top, spacing, side, splats, row, x, y):
    """Bits of the 4 x 4 rectangles [left + spacing * column, + side] x [top + spacing * row, + side] touched by a
    footprint; x and y are its centre (Lanes)."""
    a, b, c = load_broadcast(splats, row, 2), load_broadcast(splats, row, 3), load_broadcast(splats, row, 4)
    x0 = lane_columns() * spacing + (left - x)
    y0 = lane_rows() * spacing + (top - y)
    x1, y1 = x0 + side, y0 + side
    zero = broadcast(0.0)
    near_x, near_y = minimum(maximum(zero, x0), x1), minimum(maximum(zero, y0), y1)
    y_on_side = minimum(maximum(load_broadcast(splats, row, 7) * near_x, y0), y1)
    x_on_side = minimum(maximum(load_broadcast(splats, row, 6) * near_y, x0), x1)
    q1 = multiply_add(near_x, multiply_add(a, near_x, b * y_on_side), c * y_on_side * y_on_side)
    q2 = multiply_add(x_on_side, multiply_add(a, x_on_side, b * near_y), c * near_y * near_y)
    return mask_bits(minimum(q1, q2) <= load_broadcast(splats, row, 5) - (LOG2_MIN_ALPHA - TOUCH_MARGIN))


@helper
def emit_tiles(p, splats, radii, tiles_x, tiles_y, pair_tiles, slot):
    """Writes the tiles (of one image) that footprint p touches from pair_tiles[slot] on; returns the next slot."""
    row = p * SPLAT
    x0, x1 = tile_range(get(splats, row), f32(get(radii, 2 * p)), tiles_x)
    y0, y1 = tile_range(get(splats, row + 1), f32(get(radii, 2 * p + 1)), tiles_y)
    x, y = load_broadcast(splats, row, 0), load_broadcast(splats, row, 1)
    for window_y in range(y0, y1, 4):
        for window_x in range(x0, x1, 4):
            left, top = broadcast(f32(window_x * 16) + f32(0.5)), broadcast(f32(window_y * 16) + f32(0.5))
            bits = touched_rectangles(left, top, 16.0, 15.0, splats, row, x, y)
            columns, rows = min(4, x1 - window_x), min(4, y1 - window_y)
            bits &= ((1 << columns) - 1) * 0x1111 & ((1 << (4 * rows)) - 1)
            while bits != 0:
                k = trailing_zeros(bits)
                bits &= bits - 1
                put(pair_tiles, slot, (window_y + (k >> 2)) * tiles_x + window_x + (k & 3))
                slot += 1
    return slot


@helper
def emit(progress, stage, tiling, splats, radii, depth_bits, chunk_starts, pair_tiles, pair_starts, items):
    """Stage 1 of the module's docstring. ``chunk_starts`` (chunks + 1, 2): where each chunk's visible footprints and
    pairs begin. ``pair_starts[p]``, ``[p + 1]`` become the slots of footprint p (2 numbers per footprint)."""
    n_images, n, tiles_x, tiles_y = tiling
    chunks = (n + CHUNK - 1) // CHUNK
    while True:
        chunk = claim(progress, stage)
        if chunk >= n_images * chunks:
            break
        item, slot = chunk_starts[2 * chunk], chunk_starts[2 * chunk + 1]
        first = chunk // chunks * n
        for p in range(first + chunk % chunks * CHUNK, first + min((chunk % chunks + 1) * CHUNK, n)):
            put(pair_starts, 2 * p, slot)
            if get(radii, 2 * p) > 0:
                slot = emit_tiles(p, splats, radii, tiles_x, tiles_y, pair_tiles, slot)
                put(items, item, get(depth_bits, p) << DEPTH_SHIFT | p)
                item += 1
            put(pair_starts, 2 * p + 1, slot)
        finish(progress, stage)
    wait_for(progress, stage, n_images * chunks)


@helper
def exclusive_sums(counts, n_keys, n_parts):
    """Turns counts[part, key] into where each part's items with that key begin: by key, then by part."""
    total = 0
    for key in range(n_keys):
        for part in range(n_parts):
            count = get(counts, part * n_keys + key)
            put(counts, part * n_keys + key, total)
            total += count
    return total


@helper
def radix_pass(progress, stage, shift, source, target, counts, n_parts):
    """One stable pass of the depth sort, by the RADIX_BITS bits from ``shift`` on."""
    n = source.shape[0]
    while True:
        part = claim(progress, stage)
        if part >= n_parts:
            break
        mine = part * RADIX
        counts[mine : mine + RADIX] = 0
        for k in range(n * part // n_parts, n * (part + 1) // n_parts):
            digit = mine + ((get(source, k) >> shift) & (RADIX - 1))
            put(counts, digit, get(counts, digit) + 1)
        finish(progress, stage)
    wait_for(progress, stage, n_parts)
    if claim(progress, stage + 1) == 0:
        exclusive_sums(counts, RADIX, n_parts)
        finish(progress, stage + 1)
    wait_for(progress, stage + 1, 1)
    while True:
        part = claim(progress, stage + 2)
        if part >= n_parts:
            break
        mine = part * RADIX
        for k in range(n * part // n_parts, n * (part + 1) // n_parts):
            item = get(source, k)
            digit = mine + ((item >> shift) & (RADIX - 1))
            at = get(counts, digit)
            put(counts, digit, at + 1)
            put(target, at, item)
        finish(progress, stage + 2)
    wait_for(progress, stage + 2, n_parts)


@helper
def place(progress, stage, tiling, items, pair_tiles, pair_starts, counts, n_parts, tile_starts, pairs):
    """Stage 3: ``pairs`` gets (footprint, slot) for each pair, tile after tile and front to back; the pairs of tile t
    are those from tile_starts[t] to tile_starts[t + 1]."""
    n_images, n, tiles_x, tiles_y = tiling
    per_image = tiles_x * tiles_y
    n_tiles = n_images * per_image
    n_items = items.shape[0]
    index_bits = (np.int64(1) << DEPTH_SHIFT) - 1
    while True:
        part = claim(progress, stage)
        if part >= n_parts:
            break
        mine = part * n_tiles
        counts[mine : mine + n_tiles] = 0
        for k in range(n_items * part // n_parts, n_items * (part + 1) // n_parts):
            ahead = get(items, min(k + 16, n_items - 1)) & index_bits
            prefetch(pair_starts, 2 * ahead)
            p = get(items, k) & index_bits
            of_image = mine + p // n * per_image
            for slot in range(get(pair_starts, 2 * p), get(pair_starts, 2 * p + 1)):
                tile = of_image + get(pair_tiles, slot)
                put(counts, tile, get(counts, tile) + 1)
        finish(progress, stage)
    wait_for(progress, stage, n_parts)
    if claim(progress, stage + 1) == 0:
        total = 0
        for tile in range(n_tiles):
            put(tile_starts, tile, total)
            for part in range(n_parts):
                count = get(counts, part * n_tiles + tile)
                put(counts, part * n_tiles + tile, total)
                total += count
        put(tile_starts, n_tiles, total)
        finish(progress, stage + 1)
    wait_for(progress, stage + 1, 1)
    while True:
        part = claim(progress, stage + 2)
        if part >= n_parts:
            break
        mine = part * n_tiles
        for k in range(n_items * part // n_parts, n_items * (part + 1) // n_parts):
            ahead = get(items, min(k + 16, n_items - 1)) & index_bits
            prefetch(pair_starts, 2 * ahead)
            p = get(items, k) & index_bits
            of_image = mine + p // n * per_image
            for slot in range(get(pair_starts, 2 * p), get(pair_starts, 2 * p + 1)):
                tile = of_image + get(pair_tiles, slot)
                at = get(counts, tile)
                put(counts, tile, at + 1)
                put(pairs, 2 * at, p)
                put(pairs, 2 * at + 1, slot)
        finish(progress, stage + 2)
    wait_for(progress, stage + 2, n_parts)


@helper
def bin_footprints(
    progress, tiling, n_parts, splats, radii, depth_bits, chunk_starts, pair_tiles, pair_starts, items, items_b,
    digit_counts, tile_counts, tile_starts, pairs,
):  # fmt: skip
    """All of the module's docstring, as stages 0 to BINNING_STAGES - 1 of a kernel."""
    emit(progress, 0, tiling, splats, radii, depth_bits, chunk_starts, pair_tiles, pair_starts, items)
    radix_pass(progress, 1, DEPTH_SHIFT, items, items_b, digit_counts, n_parts)
    radix_pass(progress, 4, DEPTH_SHIFT + RADIX_BITS, items_b, items, digit_counts, n_parts)
    radix_pass(progress, 7, DEPTH_SHIFT + 2 * RADIX_BITS, items, items_b, digit_counts, n_parts)
    place(progress, 10, tiling, items_b, pair_tiles, pair_starts, tile_counts, n_parts, tile_starts, pairs)
