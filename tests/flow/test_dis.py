"""The DIS estimator."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch

from flow.dis import DISEstimator
from flow.errors import FlowError
from flow.factory import make_estimator


def texture(height=96, width=128, seed=0):
    """A smooth random colour image with room to shift it."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return torch.from_numpy(np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8))


def shifted(image, dx, dy):
    """What is at x comes to x + (dx, dy)."""
    matrix = np.float64([[1, 0, dx], [0, 1, dy]])
    moved = cv2.warpAffine(
        image.numpy(), matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return torch.from_numpy(moved)


@pytest.mark.parametrize("shift", [(2.0, 0.0), (0.0, -1.5), (-3.25, 2.5)])
def test_a_shift_is_found_in_pixels_right_and_down(shift):
    image = texture()
    flow = DISEstimator()(image, shifted(image, *shift))
    assert flow.shape == (96, 128, 2) and flow.dtype == torch.float32
    inner = flow[12:-12, 12:-12]
    assert torch.allclose(inner.mean((0, 1)), torch.tensor(shift), atol=0.05)
    assert (inner - torch.tensor(shift)).norm(dim=-1).mean() < 0.15


def test_a_batch_is_its_pairs_one_by_one_for_bytes_and_floats():
    images = torch.stack([texture(seed=s) for s in range(3)])
    moved = torch.stack([shifted(image, 1.5, 0.5) for image in images])
    batch = DISEstimator()(images, moved)
    for i in range(3):
        assert torch.equal(batch[i], DISEstimator()(images[i], moved[i]))
    assert torch.equal(batch, DISEstimator()(images / 255.0, moved / 255.0))


def test_a_guess_makes_a_large_motion_findable_and_stays_untouched():
    image = texture(128, 192)
    moved = shifted(image, 70.0, 0.0)
    truth = torch.tensor([70.0, 0.0])
    seen = slice(12, -12), slice(12, 192 - 82)
    guess = torch.zeros(128, 192, 2)
    guess[..., 0] = 67.0
    before = guess.clone()
    direct = (DISEstimator()(image, moved)[seen] - truth).norm(dim=-1).mean()
    guided = (DISEstimator()(image, moved, guess)[seen] - truth).norm(dim=-1).mean()
    assert guided < 0.5 < 10 < direct
    assert torch.equal(guess, before)


def test_the_guess_is_optional_and_a_zero_guess_changes_no_still_image():
    image = texture()
    assert DISEstimator()(image, image).abs().max() < 0.01
    assert DISEstimator()(image, image, torch.zeros(96, 128, 2)).abs().max() < 0.01


def test_equal_for_any_number_of_threads_and_safe_to_share():
    estimator, threads = DISEstimator(), cv2.getNumThreads()
    pairs = [(texture(seed=s), shifted(texture(seed=s), 1.0 + s, 0.5)) for s in range(6)]
    try:
        cv2.setNumThreads(1)
        alone = [estimator(*pair) for pair in pairs]
        cv2.setNumThreads(4)
        with ThreadPoolExecutor(4) as executor:
            together = list(executor.map(lambda pair: estimator(*pair), pairs * 3))
    finally:
        cv2.setNumThreads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone * 3, together, strict=True))


@pytest.mark.parametrize("size", [(12, 12), (12, 200), (200, 12), (13, 17), (31, 64)])
def test_small_and_odd_sizes(size):
    flow = DISEstimator()(texture(*size), texture(*size, seed=1))
    assert flow.shape == (*size, 2) and flow.isfinite().all()


def test_channels_are_red_green_blue():
    # Red moves right and blue left; red counts 2.6 times as much in grey values.
    image, moved = texture(), shifted(texture(), -2.0, 0.0)
    image[..., 1] = moved[..., 1] = 128
    moved[..., 0] = shifted(image, 2.0, 0.0)[..., 0]
    assert DISEstimator()(image, moved)[12:-12, 12:-12, 0].median() > 1
    assert DISEstimator()(image.flip(-1), moved.flip(-1))[12:-12, 12:-12, 0].median() < -1


def test_settings_act_and_are_on_record():
    default, coarse = DISEstimator(), DISEstimator(preset="ultrafast", finest_scale=None)
    image = texture()
    moved = shifted(image, 2.25, 0.75)
    assert not torch.equal(default(image, moved), coarse(image, moved))
    assert default.provenance() == DISEstimator(variational_iterations=5).provenance()
    assert default.provenance() != DISEstimator(variational_iterations=6).provenance()
    assert default.provenance()["finest_scale"] == 0 and default.provenance()["opencv"] == cv2.__version__
    assert make_estimator("dis", finest_scale=1).provenance()["finest_scale"] == 1


def test_bad_input_is_named():
    image, estimator = texture(), DISEstimator()
    for call, words in (
        (lambda: DISEstimator(preset="best"), "preset"),
        (lambda: DISEstimator(finest_scale=-1), "finest_scale"),
        (lambda: DISEstimator(variational_iterations=2.5), "variational_iterations"),
        (lambda: estimator(image[:11], image[:11]), "12 px"),
        (lambda: estimator(image, image[:90]), "same size"),
        (lambda: estimator(image, image, torch.full((96, 128, 2), torch.nan)), "finite"),
        (lambda: estimator(image, image, torch.zeros(90, 128, 2)), "initial flow"),
    ):
        with pytest.raises(FlowError, match=words):
            call()


def test_small_images_are_searched_enlarged():
    """The flow comes back in the pixels of the images, and small details are found better."""
    image = texture()
    moved, truth = shifted(image, 1.3, -0.6), torch.tensor([1.3, -0.6])
    inner = (slice(12, -12), slice(12, -12))
    errors = {}
    for size in (0, 640):
        flow = DISEstimator(enlarge_to=size)(image, moved, truth.expand(96, 128, 2))
        assert flow.shape == (96, 128, 2)
        errors[size] = (flow[inner] - truth).norm(dim=-1).mean()
    assert errors[640] < 0.1 and errors[640] < errors[0] + 0.02
    assert DISEstimator(enlarge_to=0).provenance() != DISEstimator().provenance()
