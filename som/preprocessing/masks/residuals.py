"""How far a pixel's flow is from that of a static scene, in pixels: under no camera motion, under a homography, and
under known cameras with a free depth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow.sampling import pixel_centers

MAX_FIT_PIXELS = 6000
"""A homography is fitted to this many pixels, drawn at random; more change nothing."""
RANSAC_ITERATIONS = 2000
MIN_FIT_PIXELS = 50
"""Trusted pixels below which no homography is fitted."""
TRIANGULATION_STEPS = 3
"""Reweighted least-squares steps; more change the residual by less than 0.01 px."""


def centers(height: int, width: int) -> np.ndarray:
    """(H,W,2) float32 coordinates of the pixel centres."""
    return pixel_centers(height, width).numpy()


@dataclass(frozen=True)
class EdgeMetric:
    """A length of residuals that counts little along straight edges, where flow can slide (the aperture problem)."""

    along: np.ndarray
    """(H,W,2) float32 unit vectors along the edge."""
    damping: np.ndarray
    """(H,W) float32 in [0, 1]: share of the part along the edge that is taken off."""

    @classmethod
    def of(cls, image: np.ndarray, sigma: float = 2.5, ratio: float = 0.3) -> EdgeMetric:
        """Of an image (H,W,3) uint8, from its structure tensor (Förstner and Gülch 1987).

        With eigenvalues a >= b of the tensor, averaged with a Gaussian of ``sigma`` px, the part along the edge counts
        sqrt(b / (b + ratio (a - b))): fully where there is equal texture in all directions or none.
        """
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        gx, gy = cv2.Scharr(grey, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(grey, cv2.CV_32F, 0, 1) / 32
        xx, xy, yy = (cv2.GaussianBlur(product, (0, 0), sigma) for product in (gx * gx, gx * gy, gy * gy))
        mean, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        angle = 0.5 * np.arctan2(2 * xy, xx - yy)
        # noise of one grey level: plain surfaces have no direction
        a, b = mean + half + 1, np.maximum(mean - half, 0) + 1
        return cls(np.stack([-np.sin(angle), np.cos(angle)], -1), 1 - np.sqrt(b / (b + ratio * (a - b))))

    def damp(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (H,W,2) with the part along the edge reduced."""
        part = (vectors * self.along).sum(-1) * self.damping
        return vectors - part[..., None] * self.along

    def length(self, vectors: np.ndarray) -> np.ndarray:
        """(H,W) px."""
        return np.linalg.norm(self.damp(vectors), axis=-1)


def fit_homography(
    flow: np.ndarray, usable: np.ndarray, threshold: float, seed: int = 0
) -> tuple[np.ndarray | None, float]:
    """The homography that most of the flow follows (MAGSAC++, Barath et al., CVPR 2020).

    Args:
        flow: (H,W,2) px.
        usable: (H,W) bool, pixels whose flow can be trusted.
        threshold: px; the largest noise of flow that follows the homography.
        seed: chooses the pixels that are fitted.

    Returns:
        the (3,3) homography, or None where it cannot be fitted, and the share of usable pixels that follow it.
    """
    chosen = np.flatnonzero(usable)
    if len(chosen) < MIN_FIT_PIXELS:
        return None, 0.0
    if len(chosen) > MAX_FIT_PIXELS:
        chosen = np.random.default_rng(seed).choice(chosen, MAX_FIT_PIXELS, replace=False)
    source = centers(*usable.shape).reshape(-1, 2)[chosen].astype(np.float64)
    target = source + flow.reshape(-1, 2)[chosen]
    cv2.setRNGSeed(seed)
    H, inlier = cv2.findHomography(
        source, target, cv2.USAC_MAGSAC, threshold, maxIters=RANSAC_ITERATIONS, confidence=0.999
    )
    if H is None or not np.isfinite(H).all():
        return None, 0.0
    return H, float(inlier.mean())


def homography_residual(flow: np.ndarray, H: np.ndarray) -> np.ndarray:
    """(H,W,2) px from where the flow (H,W,2) leads to where the homography (3,3) does."""
    height, width = flow.shape[:2]
    x, y = centers(height, width).astype(np.float64).transpose(2, 0, 1)
    u, v, w = (H[i, 0] * x + H[i, 1] * y + H[i, 2] for i in range(3))
    w = np.where(np.abs(w) < 1e-9, 1e-9, w)
    return np.stack([u / w - x, v / w - y], -1).astype(np.float32) - flow


def rigid_residual(
    flows: np.ndarray,
    usable: np.ndarray,
    K: np.ndarray,
    motions: np.ndarray,
    nearest: np.ndarray | float,
    farthest: np.ndarray | float,
    metric: EdgeMetric,
) -> tuple[np.ndarray, np.ndarray]:
    """The smallest disagreement of a pixel's flow to several frames with one static point on its ray.

    With A = K R K^-1, b = K t and inverse depth d, the pixel p goes to (A p + d b) up to scale. Each frame gives two
    equations linear in d; their least-squares solution, reweighted by distance and by a Cauchy weight, is the depth
    that the most frames agree on (iteratively reweighted linear triangulation, Hartley and Sturm, CVIU 1997). Depth is
    kept within bounds, which a point that moves along its epipolar lines often breaks.

    Args:
        flows: (S,H,W,2) px, from this frame to S others.
        usable: (S,H,W) bool.
        K: (3,3) px of the flow fields.
        motions: (S,4,4), from this camera to each of the others.
        nearest, farthest: bounds on the depth z, (H,W) or numbers, in units of the motions; farthest may be inf.
        metric: measures residuals.

    Returns:
        (S,H,W) px residuals at that depth, and (H,W) the depth, inf where no frame shows parallax.
    """
    S, height, width, _ = flows.shape
    p = centers(height, width).astype(np.float32)
    low, high = 1 / np.asarray(farthest, np.float32), 1 / np.asarray(nearest, np.float32)
    linear = []
    for flow, motion in zip(flows, motions, strict=True):
        A = (K @ motion[:3, :3] @ np.linalg.inv(K)).astype(np.float32)
        b = (K @ motion[:3, 3]).astype(np.float32)
        a = p @ A[:, :2].T + A[:, 2]
        q = p + flow
        # (a + d b) - q (a_z + d b_z) = 0 in x and y
        constant = a[..., :2] - q * a[..., 2:]
        slope = b[:2] - q * b[2]
        linear.append((a[..., 2], b[2], metric.damp(constant), metric.damp(slope)))
    inverse = np.zeros((height, width), np.float32)
    for step in range(TRIANGULATION_STEPS):
        numerator, denominator = np.zeros_like(inverse), np.full_like(inverse, 1e-12)
        for s, (a_z, b_z, constant, slope) in enumerate(linear):
            z = np.maximum(a_z + inverse * b_z, 1e-3)
            weight = usable[s] / z**2
            if step:
                error = (constant + inverse[..., None] * slope) / z[..., None]
                weight = weight / (1 + (error**2).sum(-1))
            numerator -= weight * (constant * slope).sum(-1)
            denominator += weight * (slope**2).sum(-1)
        inverse = np.clip(numerator / denominator, low, high)
    residuals = np.empty((S, height, width), np.float32)
    for s, (a_z, b_z, constant, slope) in enumerate(linear):
        z = np.maximum(a_z + inverse * b_z, 1e-3)
        residuals[s] = np.linalg.norm(constant + inverse[..., None] * slope, axis=-1) / z
    with np.errstate(divide="ignore"):
        return residuals, 1 / inverse
