"""How far estimated cameras may be trusted: numbers, and sentences that a user can act on."""

from __future__ import annotations

import numpy as np

from som.preprocessing.cameras.options import TrustOptions
from som.preprocessing.cameras.result import CameraEstimate
from som.preprocessing.cameras.reversal import MAX_COST_RATIO

DEFAULT = TrustOptions()


def measure_trust(estimate: CameraEstimate, options: TrustOptions = DEFAULT) -> dict:
    """Registered share, reprojection errors, inliers and parallax, as plain JSON.

    Errors are in pixels of the images; ``inlier_share`` is of the observations in registered frames.
    """
    findings = {
        "num_frames": estimate.num_frames,
        "registered_share": float(estimate.registered.mean()),
        "num_points": len(estimate.points),
        "num_observations": len(estimate.obs_xy),
        "focal_px": float(estimate.K[0, 0]),
        "horizontal_fov_deg": float(np.degrees(2 * np.arctan(estimate.size[1] / (2 * estimate.K[0, 0])))),
    }
    used = estimate.registered[estimate.obs_frame]
    if not used.any():
        return findings
    errors = estimate.reprojection_errors()[used]
    seen = np.unique(estimate.obs_point[used])
    parallax = estimate.parallax_degrees()[seen]
    return findings | {
        "median_reprojection_px": float(np.median(errors)),
        "p90_reprojection_px": float(np.percentile(errors, 90)),
        "inlier_share": float((errors < options.inlier_error * max(estimate.size) / 480).mean()),
        "median_parallax_deg": float(np.median(parallax)),
    }


def explain(estimate: CameraEstimate, options: TrustOptions = DEFAULT) -> list[str]:
    """Warnings about an estimate whose ``findings`` are complete; each one sentence that says what to do."""
    found, said = estimate.findings, []
    missing = np.flatnonzero(~estimate.registered)
    if len(missing):
        which = f"frame {missing[0]}" + (f" to frame {missing[-1]}" if len(missing) > 1 else "")
        said.append(
            f"{len(missing)} of {estimate.num_frames} frames ({which}) have no camera of their own and got "
            "interpolated ones; leave them out if they are blurred, covered or of another shot."
        )
    if "median_reprojection_px" not in found:
        return said
    large = found["median_reprojection_px"] > options.max_median_error * max(estimate.size) / 480
    if large or found["inlier_share"] < options.min_inlier_share:
        said.append(
            f"only {found['inlier_share']:.0%} of the tracked points fit the cameras (median error "
            f"{found['median_reprojection_px']:.2f} px); give masks of everything that moves, the focal length, or "
            "cameras from another program."
        )
    if found["median_parallax_deg"] < options.min_parallax:
        said.append(
            f"the camera hardly changes its place (median parallax {found['median_parallax_deg']:.2f} degrees): "
            "rotations are right but distances are guesses; use depth from a network and expect no wide novel views."
        )
    ratio = found.get("reversal_cost_ratio", 0)
    if 1 / MAX_COST_RATIO < ratio < MAX_COST_RATIO:
        said.append(
            "near and far may be exchanged: the scene turned inside out explains the motion as well, and the one whose "
            "ground lies in front was taken; check the depth in the report."
        )
    return said + _about_focal(found, options)


def _about_focal(found: dict, options: TrustOptions) -> list[str]:
    if found.get("focal_known"):
        return []
    said = []
    if found.get("focal_spread", 0) > options.max_focal_spread:
        said.append(
            f"focal lengths that differ by {found['focal_spread']:.0%} explain the video almost equally well, "
            f"{found['focal_px']:.0f} px was taken; give `cameras.focal` or `cameras.fov` if you know the lens."
        )
    elif found.get("focal_cost_rise", 1) < options.min_focal_cost_rise:
        said.append(
            f"the motion hardly determines the focal length ({found['focal_px']:.0f} px taken; 10 % more or less fits "
            "almost as well); give `cameras.focal` or `cameras.fov` if you know the lens."
        )
    elif not 0.4 <= found["focal_px"] / found["longer_side"] <= 3:
        said.append(
            f"the focal length came out as {found['focal_px']:.0f} px ({found['horizontal_fov_deg']:.0f} degrees across"
            "), which few cameras have; give `cameras.focal` or `cameras.fov`."
        )
    return said
