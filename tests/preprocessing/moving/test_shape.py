"""Structure from motion on one object_id: right for what is rigid and turns, silent about the rest."""

import numpy as np
import pytest

from som.preprocessing.cameras.bundle_adjustment import Scene
from som.preprocessing.moving.segments import find_segments
from som.preprocessing.moving.shape import find_shape, misfits, necker_reversal
from tests.preprocessing.moving.solids import F, K, T, film_box, turned

KS = np.broadcast_to(K, (T, 3, 3))
PATH = np.stack([np.linspace(-0.5, 0.6, T), np.full(T, 0.6), np.linspace(3.4, 3.0, T)], 1)
TURN = np.linspace(0.2, 1.4, T)


def shape_of(film, K=KS):
    segments = find_segments(film.moving.numpy(), film.xy, film.visible)
    return find_shape(segments, int(segments.object_id[0]), film.xy, K)


def test_a_turning_box_is_found_up_to_one_factor():
    film = film_box(PATH, TURN, noise=0.1)
    shape = shape_of(film)
    assert shape is not None and len(shape.track) > 0.7 * film.visible.sum()
    error = shape.log_z - np.log(film.z[shape.track, shape.frame])
    error -= np.median(error)
    variation = np.log(film.z[shape.track, shape.frame]).std()
    assert np.median(np.abs(error)) < 0.1 * variation
    # over the whole clip, too
    by_frame = [np.median(error[shape.frame == t]) for t in range(T)]
    assert np.abs(by_frame).max() < 0.02


def test_intrinsics_of_every_frame_are_minded():
    film = film_box(PATH, TURN, noise=0.1)
    zoom = np.linspace(1.0, 1.15, T)
    Ks = KS.copy()
    Ks[:, :2] *= zoom[:, None, None]
    zoomed = film.xy * zoom[None, :, None]
    segments = find_segments(film.moving.numpy(), film.xy, film.visible)
    # the masks stay those of the unzoomed frames: only the places of the tracks are looked at
    a = find_shape(segments, 0, film.xy, KS)
    b = find_shape(segments, 0, np.where(zoomed < [120, 90], zoomed, film.xy), Ks)
    assert a is not None and b is not None
    both = {(q, t): z for q, t, z in zip(a.track, a.frame, a.log_z, strict=True)}
    difference = np.array([z - both[q, t] for q, t, z in zip(b.track, b.frame, b.log_z, strict=True) if (q, t) in both])
    assert np.median(np.abs(difference - np.median(difference))) < 0.01


def test_what_deforms_has_no_shape():
    film = film_box(PATH, TURN)
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, (len(film.xy), 1))
    wobble = 3 * np.stack([np.sin(np.arange(T) / 2 + phase), np.cos(np.arange(T) / 2 + phase)], -1)
    film.xy = film.xy + wobble
    assert shape_of(film) is None


def test_what_neither_turns_nor_nears_has_no_shape():
    still = np.repeat([[0.0, 0.6, 3.2]], T, 0)
    assert shape_of(film_box(still, np.full(T, 0.5), noise=0.15)) is None


def test_too_few_tracks_or_frames_are_no_object_to_solve():
    film = film_box(PATH, TURN)
    film.visible[np.flatnonzero(film.visible.any(1))[50:]] = False
    assert shape_of(film) is None
    film = film_box(PATH, TURN)
    film.visible[:, 5:] = False
    segments = find_segments(film.moving.numpy(), film.xy, film.visible)
    assert find_shape(segments, 0, film.xy, KS) is None


def test_reversal_looks_alike_from_afar_and_twice_over_is_the_object_itself():
    far = 200.0
    rng = np.random.default_rng(1)
    X = np.concatenate([rng.uniform(-0.5, 0.5, (50, 3)) + [0, 0, far], np.ones((50, 1))], 1)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    R = np.stack([turned(a) for a in (0.0, 0.3, 0.7)])
    middle = np.median(X[:, :3] / X[:, 3:], 0)
    scene = Scene(R, middle - R @ middle, X, F)
    again = necker_reversal(necker_reversal(scene))
    np.testing.assert_allclose(again.R, scene.R, atol=1e-12)
    np.testing.assert_allclose(again.t, scene.t, atol=1e-6)
    np.testing.assert_allclose(again.X, scene.X, atol=1e-9)

    def project(scene):
        y = np.einsum("cij,pj->cpi", scene.R, scene.X[:, :3] / scene.X[:, 3:]) + scene.t[:, None]
        return y[..., :2] / y[..., 2:] * far

    mirrored = necker_reversal(scene)
    assert not np.allclose(mirrored.R[2], scene.R[2])
    assert project(mirrored) == pytest.approx(project(scene), abs=0.01)


def test_tracks_of_the_object_fit_and_others_do_not():
    film = film_box(PATH, TURN, noise=0.1)
    third = (np.arange(len(film.xy)) % 3 == 0)[:, None]
    segments = find_segments(film.moving.numpy(), film.xy, film.visible & ~third)
    shape = find_shape(segments, int(segments.object_id[0]), film.xy, KS)
    left_out = film.visible & third
    asked = np.flatnonzero(left_out.sum(1) >= 4)
    fitting = misfits(shape, left_out, film.xy, KS)
    assert np.isfinite(fitting).sum() > 0.8 * len(asked) and np.median(fitting[np.isfinite(fitting)]) < 0.3
    assert set(np.flatnonzero(np.isfinite(fitting))) <= set(asked)
    drifting = film.xy + np.linspace(0, 15, T)[None, :, None]
    assert np.isfinite(misfits(shape, left_out, drifting, KS)).sum() < 0.1 * len(asked)
    assert np.isinf(misfits(shape, np.zeros_like(left_out), film.xy, KS)).all()
