import numpy as np
import pytest

from som.preprocessing.masks.evidence import combine, explained_share, median_where
from som.preprocessing.masks.residuals import (
    EdgeMetric,
    centers,
    fit_homography,
    homography_residual,
    rigid_residual,
)

K = np.array([[50.0, 0, 30], [0, 55, 20], [0, 0, 1]])
SIZE = (40, 60)
PLAIN = EdgeMetric.of(np.zeros((*SIZE, 3), np.uint8))


def rotation(axis_angle):
    import cv2

    return cv2.Rodrigues(np.asarray(axis_angle, float))[0]


def motion(axis_angle, translation):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation(axis_angle), translation
    return T


def flow_of(depth, T):
    """Flow of static points at this depth (H,W), by projecting them."""
    p = np.concatenate([centers(*SIZE), np.ones((*SIZE, 1))], -1)
    X = (p @ np.linalg.inv(K).T) * depth[..., None]
    q = (X @ T[:3, :3].T + T[:3, 3]) @ K.T
    return (q[..., :2] / q[..., 2:] - p[..., :2]).astype(np.float32)


MOTIONS = np.stack([motion([0.01, 0.02, -0.01], [0.2, 0, 0.05]), motion([0, -0.03, 0.01], [-0.3, 0.1, 0.0])])


def test_homography_of_a_rotating_camera_is_recovered_beside_a_moving_block():
    H = K @ rotation([0.02, -0.05, 0.03]) @ np.linalg.inv(K)
    flow = flow_of(np.full(SIZE, 3.0), motion([0.02, -0.05, 0.03], [0, 0, 0]))
    flow[10:20, 10:30] += (5, -3)
    fitted, share = fit_homography(flow, np.ones(SIZE, bool), 1.0)
    np.testing.assert_allclose(fitted / fitted[2, 2], H / H[2, 2], atol=2e-3)
    residual = homography_residual(flow, fitted)
    assert share == pytest.approx(1 - 200 / 2400, abs=0.01)
    np.testing.assert_allclose(residual[10:20, 10:30], np.broadcast_to((-5, 3), (10, 20, 2)), atol=0.05)
    assert np.abs(residual[25:]).max() < 0.05


def test_homography_needs_trusted_flow():
    usable = np.zeros(SIZE, bool)
    usable[0, :20] = True
    assert fit_homography(np.zeros((*SIZE, 2), np.float32), usable, 1.0) == (None, 0.0)


def test_static_points_have_no_rigid_residual_and_their_depth_is_found():
    depth = np.linspace(1.5, 9, 2400).reshape(SIZE)
    flows = np.stack([flow_of(depth, T) for T in MOTIONS])
    residuals, found = rigid_residual(flows, np.ones((2, *SIZE), bool), K, MOTIONS, 0.1, np.inf, PLAIN)
    assert residuals.max() < 1e-2
    np.testing.assert_allclose(found, depth, rtol=1e-2)


def test_motion_across_epipolar_lines_is_a_rigid_residual():
    flows = np.stack([flow_of(np.full(SIZE, 4.0), motion([0, 0, 0], [x, 0, 0])) for x in (0.2, -0.2)])
    flows[..., 1] += 3.0
    motions = np.stack([motion([0, 0, 0], [x, 0, 0]) for x in (0.2, -0.2)])
    residuals, found = rigid_residual(flows, np.ones((2, *SIZE), bool), K, motions, 0.1, np.inf, PLAIN)
    np.testing.assert_allclose(residuals, 3.0, atol=1e-3)
    np.testing.assert_allclose(found, 4.0, rtol=1e-3)


def test_depth_stays_within_its_bounds():
    # the flow is that of depth 4: f t / z = 50 * .2 / 4 = 2.5 px; at most 2 leaves 5 - 2.5, at least 8 leaves 1.25
    motions = np.stack([motion([0, 0, 0], [x, 0, 0]) for x in (0.2, -0.2)])
    flows = np.stack([flow_of(np.full(SIZE, 4.0), T) for T in motions])
    usable = np.ones((2, *SIZE), bool)
    near, _ = rigid_residual(flows, usable, K, motions, 1.0, 2.0, PLAIN)
    far, _ = rigid_residual(flows, usable, K, motions, np.full(SIZE, 8.0), np.full(SIZE, 9.0), PLAIN)
    np.testing.assert_allclose(near, 2.5, rtol=1e-3)
    np.testing.assert_allclose(far, 1.25, rtol=1e-3)


def test_a_rotating_camera_gives_no_depth_but_a_residual():
    motions = np.stack([motion([0, 0.03, 0], [0, 0, 0]), motion([0.01, -0.03, 0], [0, 0, 0])])
    flows = np.stack([flow_of(np.full(SIZE, 4.0), T) for T in motions])
    flows[:, :, 30:] += (2.0, 0.0)
    residuals, found = rigid_residual(flows, np.ones((2, *SIZE), bool), K, motions, 0.1, np.inf, PLAIN)
    assert residuals[:, :, :30].max() < 1e-2 and np.isinf(found).all()
    np.testing.assert_allclose(residuals[:, :, 30:], 2.0, atol=1e-2)


def test_an_outlying_frame_does_not_pull_the_depth():
    motions = np.stack([motion([0, 0, 0], [x, 0, 0]) for x in (-0.4, -0.2, 0.2, 0.4)])
    flows = np.stack([flow_of(np.full(SIZE, 4.0), T) for T in motions])
    flows[3, ..., 0] += 10
    _, found = rigid_residual(flows, np.ones((4, *SIZE), bool), K, motions, 0.1, np.inf, PLAIN)
    np.testing.assert_allclose(found, 4.0, rtol=0.15)


def test_residuals_along_an_edge_count_little():
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:, 30:] = 200
    metric = EdgeMetric.of(image)
    along, across = (np.broadcast_to(np.float32(v), (*SIZE, 2)) for v in ((0, 4), (4, 0)))
    assert metric.length(along)[20, 30] < 0.4
    assert metric.length(across)[20, 30] == pytest.approx(4, abs=1e-3)
    # a plain surface has no edge, a checkerboard has edges both ways
    assert metric.length(along)[20, 5] > 3.4
    checks = np.kron(np.indices((10, 15)).sum(0) % 2, np.ones((4, 4)))[..., None].repeat(3, -1) * 200
    assert EdgeMetric.of(checks.astype(np.uint8)).length(along)[20, 30] > 3.2


def test_median_where_agrees_with_nanmedian():
    rng = np.random.default_rng(0)
    values, known = rng.uniform(0, 5, (6, 20, 30)), rng.uniform(size=(6, 20, 30)) < 0.6
    known[:, 0, 0] = False
    expected = np.full((20, 30), np.nan)
    for i, j in np.argwhere(known.any(0)):
        expected[i, j] = np.median(values[known[:, i, j], i, j])
    np.testing.assert_allclose(median_where(values, known), expected, rtol=1e-6)


def test_combination_weighs_by_what_each_model_explains():
    plane, rigid = np.full((1, 10, 10), 0.5), np.full((1, 10, 10), 0.5)
    plane[0, :5] = 4.0  # explains one half
    rigid[0, 0] = 9.0  # explains nine tenths
    assert explained_share(plane, 1.0) == 0.5 and explained_share(rigid, 1.0) == 0.9
    score, weight = combine(plane, rigid, 1.0)
    assert weight == pytest.approx(np.log(10) / (np.log(10) + np.log(2)))
    assert score[0, 0, 0] == pytest.approx(4 ** (1 - weight) * 9**weight)


def test_unknown_residuals():
    plane, rigid = np.full((2, 4, 4), 3.0), np.full((2, 4, 4), 0.5)
    plane[0, 0, 0] = rigid[0, 0, 0] = np.nan
    rigid[0, 1, 1] = np.nan
    rigid[1] = np.nan  # a frame without a pose
    plane[1, 2, 2] = 0.5
    score, weight = combine(plane, rigid, 1.0)
    assert np.isnan(score[0, 0, 0])
    assert score[0, 1, 1] == pytest.approx(3 ** (1 - weight))
    np.testing.assert_allclose(score[1, 0], 3 ** (1 - weight))
