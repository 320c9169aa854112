"""From Gaussians in space to footprints in the image, and back with gradients; 16 Gaussians at a time.

Forward, per Gaussian and camera (EWA splatting, Zwicker et al. 2001, as in 3DGS, Kerbl et al. 2023, and gsplat,
arXiv 2312.02121; :mod:`som.rendering.reference` has the same formulas in PyTorch). With the camera's rotation W, the
Jacobian J of the projection, the Gaussian's rotation R and scales S = diag(s), all is built from the 2 x 3 matrix

    U = J W R S     (rows u and w: the images of the three axes),     Sigma = U U^T + eps I.

The determinant is taken as a sum of squares, det(U U^T) = |u x w|^2 (Cauchy-Binet), so that long thin Gaussians, whose
Sigma is nearly singular, do not lose it to cancellation.

Backward, with the conic Q = Sigma^-1 and v_X short for the gradient of the loss to X:

    v_Sigma = -Q v_Q Q,   v_U = 2 v_Sigma U,   v_s from the columns of (J W R)^T v_U,   v_R = (J W)^T v_U S,
    v_(J W) = v_U S R^T,  v_J = v_(J W) W^T,   v_W = J^T v_(J W) plus the part through the mean.

A quaternion q of any length stands for q/|q|; its gradient is orthogonal to q and scales with 1/|q|.

Left out (radii 0, gradient 0): centres outside [near, far]; opacity below 1/255; footprints outside the image, or so
large (sigma above 1e9 pixels) that float32 would overflow. Every gradient that does overflow becomes 0.

Groups overlap rather than being masked: the last group of an image starts at n - 16 and repeats some Gaussians, whose
results are the same again. So n >= 16, which the caller ensures by padding.
"""

from __future__ import annotations

import math

import numpy as np

from som.rendering.cpu.cache import helper, kernel
from som.rendering.cpu.simd import (
    LANES,
    absolute,
    broadcast,
    ceil,
    gather,
    get,
    join,
    load,
    log2,
    mask_from_bits,
    maximum,
    minimum,
    multiply_add,
    scatter,
    split,
    sqrt,
    store,
    store_at,
    to_int,
    where,
    zeros,
)
from som.rendering.cpu.threads import claim, enter, finish, wait_for

f32 = np.float32
CHUNK = 512
"""Gaussians per chunk: fixed, so that sums over chunks do not depend on the number of threads."""
MIN_ALPHA = f32(1.0 / 255.0)
LOG2_MIN_ALPHA = f32(math.log2(1.0 / 255.0))
MAX_COVARIANCE = f32(1e18)
LOG2_E = f32(math.log2(math.e))
SPLAT = 8
"""Numbers per row of ``splats``, what binning and blending need of one footprint: mean x and y; the quadratic form
A dx^2 + B dx dy + C dy^2, which is -log2 of the falloff; log2 of the opacity; -B/2A and -B/2C, with which the nearest
point of the ellipse on a vertical or horizontal line is found."""


@helper
def camera_lanes(viewmats, Ks, image, width, height):
    """Constants of one camera in all lanes: W and t row by row (12), fx, fy, cx, cy, limits of x/z and y/z (4)."""
    v = image * 16
    fx, fy, cx, cy = Ks[image * 9], Ks[image * 9 + 4], Ks[image * 9 + 2], Ks[image * 9 + 5]
    margin_x = f32(0.15) * width / fx
    margin_y = f32(0.15) * height / fy
    return (
        (broadcast(viewmats[v]), broadcast(viewmats[v + 1]), broadcast(viewmats[v + 2]), broadcast(viewmats[v + 3])),
        (broadcast(viewmats[v + 4]), broadcast(viewmats[v + 5]), broadcast(viewmats[v + 6]),
         broadcast(viewmats[v + 7])),
        (broadcast(viewmats[v + 8]), broadcast(viewmats[v + 9]), broadcast(viewmats[v + 10]),
         broadcast(viewmats[v + 11])),
        (broadcast(fx), broadcast(fy), broadcast(cx), broadcast(cy)),
        (broadcast(-(cx / fx + margin_x)), broadcast((width - cx) / fx + margin_x),
         broadcast(-(cy / fy + margin_y)), broadcast((height - cy) / fy + margin_y)),
    )  # fmt: skip


@helper
def dot3(a, b):
    return multiply_add(a[0], b[0], multiply_add(a[1], b[1], a[2] * b[2]))


@helper
def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@helper
def load3(array, row):
    return gather(array, row * 3, 3), gather(array, row * 3 + 1, 3), gather(array, row * 3 + 2, 3)


@helper
def unit_quaternions(quats, row):
    """(q / |q|, 1 / |q|); zero quaternions give zeros, which the rotation turns into the identity."""
    w, x, y, z = (
        gather(quats, row * 4, 4), gather(quats, row * 4 + 1, 4),
        gather(quats, row * 4 + 2, 4), gather(quats, row * 4 + 3, 4),
    )  # fmt: skip
    largest = maximum(maximum(absolute(w), absolute(x)), maximum(absolute(y), absolute(z)))
    nonzero = largest > f32(1e-30)
    scale = where(nonzero, 1.0 / where(nonzero, largest, 1.0), 0.0)  # first to length 1..2: squares cannot overflow
    a, b, c, d = w * scale, x * scale, y * scale, z * scale
    square = multiply_add(a, a, multiply_add(b, b, multiply_add(c, c, d * d)))
    inverse = scale / sqrt(maximum(square, 0.5))
    # From the numbers as given, rounded once: long needles feel the last bit of their direction.
    return (w * inverse, x * inverse, y * inverse, z * inverse), inverse


@helper
def rotations(q):
    """Rows of the rotation matrices of unit quaternions."""
    w, x, y, z = q
    return (
        (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
        (2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
        (2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
    )


@helper
def times_rotation(row, R):
    """row vector times matrix"""
    return (
        row[0] * R[0][0] + row[1] * R[1][0] + row[2] * R[2][0],
        row[0] * R[0][1] + row[1] * R[1][1] + row[2] * R[2][1],
        row[0] * R[0][2] + row[1] * R[1][2] + row[2] * R[2][2],
    )


@helper
def times_transposed_rotation(row, R):
    return dot3(row, R[0]), dot3(row, R[1]), dot3(row, R[2])


@helper
def geometry(camera, mean, R, scale, nearest):
    """What forward and backward share: the mean in the camera, the clamped directions, J, the rows of J W and of U."""
    W0, W1, W2, intrinsics, limits = camera
    x, y, z = dot3(W0, mean) + W0[3], dot3(W1, mean) + W1[3], dot3(W2, mean) + W2[3]
    in_front = z >= nearest
    inverse_z = 1.0 / where(in_front, z, 1.0)
    xz, yz = x * inverse_z, y * inverse_z
    clamped_x = minimum(maximum(xz, limits[0]), limits[1])
    clamped_y = minimum(maximum(yz, limits[2]), limits[3])
    J00, J11 = intrinsics[0] * inverse_z, intrinsics[1] * inverse_z
    J02, J12 = -(J00 * clamped_x), -(J11 * clamped_y)
    row0 = (
        multiply_add(J00, W0[0], J02 * W2[0]),
        multiply_add(J00, W0[1], J02 * W2[1]),
        multiply_add(J00, W0[2], J02 * W2[2]),
    )
    row1 = (
        multiply_add(J11, W1[0], J12 * W2[0]),
        multiply_add(J11, W1[1], J12 * W2[1]),
        multiply_add(J11, W1[2], J12 * W2[2]),
    )
    rotated0, rotated1 = times_rotation(row0, R), times_rotation(row1, R)
    u = rotated0[0] * scale[0], rotated0[1] * scale[1], rotated0[2] * scale[2]
    w = rotated1[0] * scale[0], rotated1[1] * scale[1], rotated1[2] * scale[2]
    return (z, inverse_z, xz, yz, clamped_x, clamped_y), (J00, J11, J02, J12), (row0, row1), (u, w), in_front


@helper
def covariance(u, w, eps2d):
    """Entries xx, xy, yy of Sigma, its determinant and that of U U^T."""
    n = cross(u, w)
    det_sharp = dot3(n, n)
    xx, xy, yy = dot3(u, u), dot3(u, w), dot3(w, w)
    det = det_sharp + eps2d * (xx + yy + eps2d)
    return xx + eps2d, xy, yy + eps2d, det, det_sharp


@helper
def project_group(i, p, camera, inputs, outputs, width, height, near, far, eps2d, antialiased):
    """16 Gaussians, rows i of the inputs and p of the outputs."""
    means, quats, scales, opacities = inputs
    means2d, conics, depths, radii, view_opacities, splats = outputs
    q, _ = unit_quaternions(quats, i)
    point, _, _, axes, in_front = geometry(camera, load3(means, i), rotations(q), load3(scales, i), near)
    z, _, xz, yz, _, _ = point
    fx, fy, cx, cy = camera[3]
    x, y = multiply_add(fx, xz, cx), multiply_add(fy, yz, cy)
    xx, xy, yy, det, det_sharp = covariance(axes[0], axes[1], eps2d)
    fits = (det > 0.0) & (xx < MAX_COVARIANCE) & (yy < MAX_COVARIANCE)
    visible = in_front & (z <= far) & fits
    inverse_det = 1.0 / where(visible, det, 1.0)
    opacity = gather(opacities, i, 1)
    if antialiased:
        opacity = opacity * sqrt(where(visible, det_sharp * inverse_det, 1.0))
    visible = visible & (opacity >= MIN_ALPHA)
    log2_opacity = log2(where(visible, opacity, 1.0))
    # alpha falls below 1/255 at this many standard deviations: sqrt(2 ln(255 opacity))
    extent = minimum(sqrt(maximum((log2_opacity - LOG2_MIN_ALPHA) * f32(2.0 / LOG2_E), 0.0)), 3.33)
    radius_x = minimum(ceil(extent * sqrt(xx)), 1e9)
    radius_y = minimum(ceil(extent * sqrt(yy)), 1e9)
    visible = visible & (x + radius_x > 0.0) & (x - radius_x < width)
    visible = visible & (y + radius_y > 0.0) & (y - radius_y < height)

    a, b, c = where(visible, yy * inverse_det, 1.0), where(visible, -xy * inverse_det, 0.0), where(
        visible, xx * inverse_det, 1.0
    )
    x, y = where(visible, x, 0.0), where(visible, y, 0.0)
    scatter(depths, p, 1, z)
    scatter(view_opacities, p, 1, opacity)
    scatter(means2d, p * 2, 2, x)
    scatter(means2d, p * 2 + 1, 2, y)
    scatter(radii, p * 2, 2, to_int(where(visible, radius_x, 0.0)))
    scatter(radii, p * 2 + 1, 2, to_int(where(visible, radius_y, 0.0)))
    scatter(conics, p * 3, 3, a)
    scatter(conics, p * 3 + 1, 3, b)
    scatter(conics, p * 3 + 2, 3, c)
    scatter(splats, p * SPLAT, SPLAT, x)
    scatter(splats, p * SPLAT + 1, SPLAT, y)
    scatter(splats, p * SPLAT + 2, SPLAT, a * (0.5 * LOG2_E))
    scatter(splats, p * SPLAT + 3, SPLAT, b * LOG2_E)
    scatter(splats, p * SPLAT + 4, SPLAT, c * (0.5 * LOG2_E))
    scatter(splats, p * SPLAT + 5, SPLAT, log2_opacity)
    scatter(splats, p * SPLAT + 6, SPLAT, -b / a)
    scatter(splats, p * SPLAT + 7, SPLAT, -b / c)


@helper
def tile_range(center, radius, n_tiles):
    """First tile and one past the last that [center - radius, center + radius] touches, within the image."""
    first = np.int64(max((center - radius) * f32(0.0625), f32(0.0)))
    last = np.int64(min((center + radius) * f32(0.0625), f32(n_tiles - 1)))
    return first, last + 1


@helper
def count_visible(first, last, means2d, radii, tiles_x, tiles_y):
    """Visible ones among rows first..last, and an upper bound of the (tile, Gaussian) pairs they make."""
    visible, pairs = 0, 0
    for p in range(first, last):
        radius_x = get(radii, 2 * p)
        if radius_x > 0:
            x0, x1 = tile_range(get(means2d, 2 * p), f32(radius_x), tiles_x)
            y0, y1 = tile_range(get(means2d, 2 * p + 1), f32(get(radii, 2 * p + 1)), tiles_y)
            visible += 1
            pairs += (x1 - x0) * (y1 - y0)
    return visible, pairs


@kernel
def project_forward(
    progress, sizes, width, height, near, far, eps2d, antialiased, inputs, viewmats, Ks, outputs, chunk_counts
):
    """All images. ``sizes``: (scenes, cameras per scene, Gaussians per scene); ``chunk_counts`` (images * chunks, 2)
    gets the visible Gaussians and the bound of the pairs of every chunk."""
    n_scenes, n_cameras, n = sizes
    enter(progress)
    chunks = (n + CHUNK - 1) // CHUNK
    n_chunks = n_scenes * n_cameras * chunks
    tiles_x, tiles_y = np.int64(math.ceil(width / 16)), np.int64(math.ceil(height / 16))
    while True:
        chunk = claim(progress, 0)
        if chunk >= n_chunks:
            break
        image, first = chunk // chunks, chunk % chunks * CHUNK
        last = min(first + CHUNK, n)
        camera = camera_lanes(viewmats, Ks, image, width, height)
        for i in range(first, last, LANES):
            row = min(i, n - LANES)
            scene_row = image // n_cameras * n + row
            project_group(
                scene_row, image * n + row, camera, inputs, outputs, width, height, near, far, eps2d, antialiased
            )
        counts = count_visible(image * n + first, image * n + last, outputs[0], outputs[3], tiles_x, tiles_y)
        chunk_counts[2 * chunk] = counts[0]
        chunk_counts[2 * chunk + 1] = counts[1]
        finish(progress, 0)
    wait_for(progress, 0, n_chunks)


@helper
def covariance_gradient(p, axes, eps2d, conics, opacity, v_conics, v_view_opacities, visible, antialiased):
    """v_Sigma (xx, xy, yy) and the gradient of the 3D opacity."""
    a, b, c = load3(conics, p)
    va, vb, vc = load3(v_conics, p)
    va, vb, vc = where(visible, va, 0.0), 0.5 * where(visible, vb, 0.0), where(visible, vc, 0.0)
    t00, t01, t10, t11 = a * va + b * vb, a * vb + b * vc, b * va + c * vb, b * vb + c * vc
    v_xx, v_xy, v_yy = -(t00 * a + t01 * b), -(t00 * b + t01 * c), -(t10 * b + t11 * c)
    v_opacity = where(visible, gather(v_view_opacities, p, 1), 0.0)
    if antialiased:
        # k = sqrt(det_sharp / det): d(k^2)/d(xx) = eps (yy (yy - eps) + xy^2) / det^2, and likewise for yy;
        # d(k^2)/d(xy) = -xy / det * (1 - k^2), with 1 - k^2 = eps (xx + yy - eps) / det. Nothing cancels.
        xx, xy, yy, det, det_sharp = covariance(axes[0], axes[1], eps2d)
        inverse_det = 1.0 / where(visible, det, 1.0)
        k = sqrt(where(visible, det_sharp * inverse_det, 1.0))
        v_square = v_opacity * opacity * 0.5 / (k + 1e-6)
        factor = v_square * eps2d * inverse_det * inverse_det
        v_xx = v_xx + where(visible, factor * (yy * (yy - eps2d) + xy * xy), 0.0)
        v_yy = v_yy + where(visible, factor * (xx * (xx - eps2d) + xy * xy), 0.0)
        v_xy = v_xy - where(visible, factor * xy * (xx + yy - eps2d), 0.0)
        v_opacity = v_opacity * k
    return v_xx, v_xy, v_yy, v_opacity


@helper
def quaternion_gradient(q, inverse_norm, v):
    """From v = v_R (rows) to the gradient of the quaternion before normalisation."""
    w, x, y, z = q
    v_w = 2.0 * (x * (v[2][1] - v[1][2]) + y * (v[0][2] - v[2][0]) + z * (v[1][0] - v[0][1]))
    v_x = 2.0 * (
        y * (v[0][1] + v[1][0]) + z * (v[0][2] + v[2][0]) + w * (v[2][1] - v[1][2])
        - 2.0 * x * (v[1][1] + v[2][2])
    )  # fmt: skip
    v_y = 2.0 * (
        x * (v[0][1] + v[1][0]) + z * (v[1][2] + v[2][1]) + w * (v[0][2] - v[2][0])
        - 2.0 * y * (v[0][0] + v[2][2])
    )  # fmt: skip
    v_z = 2.0 * (
        x * (v[0][2] + v[2][0]) + y * (v[1][2] + v[2][1]) + w * (v[1][0] - v[0][1])
        - 2.0 * z * (v[0][0] + v[1][1])
    )  # fmt: skip
    along = v_w * w + v_x * x + v_y * y + v_z * z
    return (
        (v_w - along * w) * inverse_norm, (v_x - along * x) * inverse_norm,
        (v_y - along * y) * inverse_norm, (v_z - along * z) * inverse_norm,
    )  # fmt: skip


@helper
def outer3(a, b, c, d):
    """a b^T + c d^T for triples, by rows."""
    return (
        (a[0] * b[0] + c[0] * d[0], a[0] * b[1] + c[0] * d[1], a[0] * b[2] + c[0] * d[2]),
        (a[1] * b[0] + c[1] * d[0], a[1] * b[1] + c[1] * d[1], a[1] * b[2] + c[1] * d[2]),
        (a[2] * b[0] + c[2] * d[0], a[2] * b[1] + c[2] * d[1], a[2] * b[2] + c[2] * d[2]),
    )


@helper
def only_finite(x, visible):
    """x where it counts and did not overflow, else 0 (comparisons with NaN are false)."""
    return where(visible & (absolute(x) < f32(1e37)), x, 0.0)


@helper
def project_group_backward(i, p, camera, inputs, saved, gradients, eps2d, antialiased):
    """11 gradients of 16 Gaussians (mean 3, quaternion 4, scale 3, opacity) and 12 of the camera's [W t]."""
    means, quats, scales, opacities = inputs
    conics, radii = saved
    v_means2d, v_conics, v_depths, v_view_opacities = gradients
    W0, W1, W2, _, _ = camera
    visible = gather(radii, p * 2, 2) > 0
    mean, scale = load3(means, i), load3(scales, i)
    q, inverse_norm = unit_quaternions(quats, i)
    R = rotations(q)
    point, J, rows, axes, _ = geometry(camera, mean, R, scale, f32(1e-20))
    _, inverse_z, xz, yz, clamped_x, clamped_y = point
    J00, J11, J02, J12 = J
    u, w = axes
    v_xx, v_xy, v_yy, v_opacity = covariance_gradient(
        p, axes, eps2d, conics, gather(opacities, i, 1), v_conics, v_view_opacities, visible, antialiased
    )
    # v_U = 2 v_Sigma U
    v_u = (
        2.0 * (v_xx * u[0] + v_xy * w[0]), 2.0 * (v_xx * u[1] + v_xy * w[1]), 2.0 * (v_xx * u[2] + v_xy * w[2])
    )  # fmt: skip
    v_w = (
        2.0 * (v_xy * u[0] + v_yy * w[0]), 2.0 * (v_xy * u[1] + v_yy * w[1]), 2.0 * (v_xy * u[2] + v_yy * w[2])
    )  # fmt: skip
    # scales and rotation: N = (J W)^T v_U, v_s = diag(R^T N), v_R = N S
    N = outer3(rows[0], v_u, rows[1], v_w)
    v_scale = (
        N[0][0] * R[0][0] + N[1][0] * R[1][0] + N[2][0] * R[2][0],
        N[0][1] * R[0][1] + N[1][1] * R[1][1] + N[2][1] * R[2][1],
        N[0][2] * R[0][2] + N[1][2] * R[1][2] + N[2][2] * R[2][2],
    )
    v_R = (
        (N[0][0] * scale[0], N[0][1] * scale[1], N[0][2] * scale[2]),
        (N[1][0] * scale[0], N[1][1] * scale[1], N[1][2] * scale[2]),
        (N[2][0] * scale[0], N[2][1] * scale[1], N[2][2] * scale[2]),
    )
    v_quat = quaternion_gradient(q, inverse_norm, v_R)
    # J W, then J
    v_row0 = times_transposed_rotation((v_u[0] * scale[0], v_u[1] * scale[1], v_u[2] * scale[2]), R)
    v_row1 = times_transposed_rotation((v_w[0] * scale[0], v_w[1] * scale[1], v_w[2] * scale[2]), R)
    v_J00, v_J02 = dot3(v_row0, W0), dot3(v_row0, W2)
    v_J11, v_J12 = dot3(v_row1, W1), dot3(v_row1, W2)
    # the mean in the camera: through the image position, the depth, and J; J02 = -fx x / z^2 follows x only where
    # x/z is not clamped
    v_x = J00 * where(visible, gather(v_means2d, p * 2, 2), 0.0)
    v_y = J11 * where(visible, gather(v_means2d, p * 2 + 1, 2), 0.0)
    free_x, free_y = (clamped_x <= xz) & (clamped_x >= xz), (clamped_y <= yz) & (clamped_y >= yz)
    e_x, e_y = J00 * inverse_z * v_J02, J11 * inverse_z * v_J12
    v_z = where(visible, gather(v_depths, p, 1), 0.0) - xz * v_x - yz * v_y
    v_z = v_z - inverse_z * (J00 * v_J00 + J11 * v_J11)
    v_z = v_z + e_x * clamped_x + e_y * clamped_y + where(free_x, e_x * clamped_x, 0.0)
    v_z = v_z + where(free_y, e_y * clamped_y, 0.0)
    v_x, v_y = v_x - where(free_x, e_x, 0.0), v_y - where(free_y, e_y, 0.0)
    gaussian = (
        W0[0] * v_x + W1[0] * v_y + W2[0] * v_z,
        W0[1] * v_x + W1[1] * v_y + W2[1] * v_z,
        W0[2] * v_x + W1[2] * v_y + W2[2] * v_z,
        v_quat[0], v_quat[1], v_quat[2], v_quat[3], v_scale[0], v_scale[1], v_scale[2], v_opacity,
    )  # fmt: skip
    view = (
        v_x * mean[0] + J00 * v_row0[0], v_x * mean[1] + J00 * v_row0[1], v_x * mean[2] + J00 * v_row0[2], v_x,
        v_y * mean[0] + J11 * v_row1[0], v_y * mean[1] + J11 * v_row1[1], v_y * mean[2] + J11 * v_row1[2], v_y,
        v_z * mean[0] + J02 * v_row0[0] + J12 * v_row1[0],
        v_z * mean[1] + J02 * v_row0[1] + J12 * v_row1[1],
        v_z * mean[2] + J02 * v_row0[2] + J12 * v_row1[2], v_z,
    )  # fmt: skip
    finite = only_finite(join(gaussian), visible)
    return finite, only_finite(join(view), visible)


@helper
def registers_at(offset):
    """Offsets of the 11 registers of one group in the scratch memory of project_backward."""
    return (
        offset, offset + 16, offset + 32, offset + 48, offset + 64, offset + 80, offset + 96, offset + 112,
        offset + 128, offset + 144, offset + 160,
    )  # fmt: skip


@helper
def scatter_gradients(outputs, i, sums):
    """The 11 gradients of 16 Gaussians to v_means, v_quats, v_scales and v_opacities."""
    v_means, v_quats, v_scales, v_opacities = outputs
    m0, m1, m2, q0, q1, q2, q3, s0, s1, s2, opacity = split(sums)
    scatter(v_means, i * 3, 3, m0)
    scatter(v_means, i * 3 + 1, 3, m1)
    scatter(v_means, i * 3 + 2, 3, m2)
    scatter(v_quats, i * 4, 4, q0)
    scatter(v_quats, i * 4 + 1, 4, q1)
    scatter(v_quats, i * 4 + 2, 4, q2)
    scatter(v_quats, i * 4 + 3, 4, q3)
    scatter(v_scales, i * 3, 3, s0)
    scatter(v_scales, i * 3 + 1, 3, s1)
    scatter(v_scales, i * 3 + 2, 3, s2)
    scatter(v_opacities, i, 1, opacity)


@kernel
def project_backward(
    progress, sizes, width, height, eps2d, antialiased, inputs, viewmats, Ks, saved, gradients, outputs, v_views,
    scratch,
):  # fmt: skip
    """Gradients of all inputs, summed over the cameras of each scene; ``v_views`` (images, chunks, 12, 16) gets the
    parts of the gradient of [W t], to be summed over chunks and lanes."""
    n_scenes, n_cameras, n = sizes
    work = scratch[enter(progress)]
    chunks = (n + CHUNK - 1) // CHUNK
    while True:
        chunk = claim(progress, 0)
        if chunk >= n_scenes * chunks:
            break
        scene, first = chunk // chunks, chunk % chunks * CHUNK
        for c in range(n_cameras):
            image = scene * n_cameras + c
            camera = camera_lanes(viewmats, Ks, image, width, height)
            view_total = zeros(12)
            for i in range(first, min(first + CHUNK, n), LANES):
                row = min(i, n - LANES)
                gaussian, view = project_group_backward(
                    scene * n + row, image * n + row, camera, inputs, saved, gradients, eps2d, antialiased
                )
                # Rows below i were in the group before: they must not count twice for the camera.
                view_total = view_total + where(mask_from_bits(np.int64(0xFFFF) << (i - row)), view, 0.0)
                at = registers_at((i - first) * 11)
                if c > 0:
                    gaussian = gaussian + load(work, at)
                store_at(work, at, gaussian)
            store(v_views, (image * chunks + chunk % chunks) * 12 * LANES, view_total)
        for i in range(first, min(first + CHUNK, n), LANES):
            sums = load(work, registers_at((i - first) * 11))
            scatter_gradients(outputs, scene * n + min(i, n - LANES), sums)
        finish(progress, 0)
    wait_for(progress, 0, n_scenes * chunks)
