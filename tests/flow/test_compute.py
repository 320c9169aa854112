"""The flow of a whole video: order, guidance, both directions, the folder."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch

from flow.compute import compute_video_flow, open_video_flow
from flow.dis import DISEstimator
from flow.errors import FlowError, UserError
from flow.estimator import FlowEstimator
from flow.video_flow import flow_path, read_flow_file, write_flow_file


class Interruption(Exception):
    pass


class FakeEstimator(FlowEstimator):
    """Frame t is grey t; flow is the difference in grey to the right, and half the guess plus 1/4 downwards."""

    name = "fake"
    min_side = 8
    parallel = True

    def __init__(self, fail_at=None, version=1):
        self.calls, self.guesses = [], {}
        self.fail_at, self.version = fail_at, version
        self.lock = threading.Lock()

    def provenance(self):
        return {"method": "fake", "version": self.version, "share": 0.1}

    def estimate(self, images0, images1, initial):
        pair = int(images0[0, 0, 0, 0]), int(images1[0, 0, 0, 0])
        with self.lock:
            self.calls.append(pair)
            self.guesses[pair] = None if initial is None else initial[0]
            if self.fail_at is not None and len(self.calls) >= self.fail_at:
                raise Interruption
        flow = torch.zeros(*images0.shape[:3], 2)
        flow[..., 0] = pair[1] - pair[0]
        flow[..., 1] = 0.25 if initial is None else initial[..., 1] / 2 + 0.25
        return flow


def grey_frames(count=9, height=16, width=48):
    return np.stack([np.full((height, width, 3), t, np.uint8) for t in range(count)])


def same_fields(a, b):
    return a.pairs() == b.pairs() and all(torch.equal(a.get(*pair), b.get(*pair)) for pair in a.pairs())


def test_all_pairs_of_both_directions():
    estimator = FakeEstimator()
    flow = compute_video_flow(grey_frames(5), estimator, strides=(1, 3))
    expected = {(s, t) for s in range(5) for t in range(5) if abs(s - t) in (1, 3)}
    assert set(flow.pairs()) == expected == set(estimator.calls)
    assert len(estimator.calls) == len(expected)
    assert flow.strides() == (1, 3) and flow.reused == 0
    assert all((flow.get(s, t)[..., 0] == t - s).all() for s, t in expected)


def test_long_strides_start_from_the_short_ones():
    estimator = FakeEstimator()
    flow = compute_video_flow(grey_frames(), estimator, strides=(4, 1, 2), workers=3)
    assert estimator.guesses[3, 4] is None
    for source, middle, target in ((2, 3, 4), (4, 3, 2), (0, 2, 4), (8, 6, 4)):
        guess = estimator.guesses[source, target]
        assert torch.equal(guess, flow.get(source, middle) + flow.get(middle, target))
    # 0.25 each at stride 1; (0.25 + 0.25) / 2 + 0.25 = 0.5 at stride 2; 0.75 at stride 4
    assert [float(flow.get(0, s)[0, 0, 1]) for s in (1, 2, 4)] == [0.25, 0.5, 0.75]
    alone = FakeEstimator()
    compute_video_flow(grey_frames(), alone, strides=(1, 2, 4), guided=False)
    assert all(guess is None for guess in alone.guesses.values())


@pytest.mark.parametrize(
    ("strides", "steps"),
    [((1, 2, 3, 6), (3, 3)), ((1, 3), (1, 1, 1)), ((2, 3, 5), (2, 3)), ((1, 4, 7), (1, 1, 1, 4)[::-1]), ((2, 5), None)],
)
def test_strides_that_are_no_doubles_start_from_the_fewest_that_add_up(strides, steps):
    estimator = FakeEstimator()
    flow = compute_video_flow(grey_frames(), estimator, strides=strides)
    guess = estimator.guesses[0, strides[-1]]
    if steps is None:
        assert guess is None
    else:
        expected = sum(float(flow.get(0, step)[0, 0, 1]) for step in steps)
        assert float(guess[0, 0, 1]) == pytest.approx(expected)
        assert float(guess[0, 0, 0]) == strides[-1]


def test_the_guess_is_read_where_the_first_field_leads():
    class Fields(FakeEstimator):
        def estimate(self, images0, images1, initial):
            flow = super().estimate(images0, images1, initial)
            if initial is None and int(images0[0, 0, 0, 0]) == 1:
                flow[..., 0] = torch.arange(48) * 0.25  # not the same everywhere, so the place of reading matters
            return flow

    estimator = Fields()
    compute_video_flow(grey_frames(3), estimator, strides=(1, 2))
    # 0 -> 1 is 1 px, and the second field is read there: column 10 gives 1 + 0.25 * 11.
    assert estimator.guesses[0, 2][5, 10, 0] == pytest.approx(1 + 0.25 * 11)


def test_any_number_of_workers_gives_the_same():
    frames = grey_frames()
    assert same_fields(*(compute_video_flow(frames, FakeEstimator(), workers=workers) for workers in (1, 4)))


def test_one_thread_unless_the_estimator_is_parallel():
    class Alone(FakeEstimator):
        parallel = False
        threads: set

        def estimate(self, images0, images1, initial):
            self.threads.add(threading.get_ident())
            return super().estimate(images0, images1, initial)

    estimator = Alone()
    estimator.threads = set()
    compute_video_flow(grey_frames(), estimator)
    assert len(estimator.threads) == 1


def test_frames_from_torch_and_one_by_one_and_reduced():
    frames = grey_frames()
    expected = compute_video_flow(frames, FakeEstimator(), max_side=32)
    assert (expected.height, expected.width) == (11, 32)
    assert (expected.image_height, expected.image_width) == (16, 48)
    assert same_fields(expected, compute_video_flow(torch.from_numpy(frames), FakeEstimator(), max_side=32))
    assert same_fields(expected, compute_video_flow((frame for frame in frames), FakeEstimator(), max_side=32))


def test_progress_counts_fields():
    seen = []
    progress = lambda stage, share: seen.append(share)  # noqa: E731
    flow = compute_video_flow(grey_frames(4), FakeEstimator(), strides=(1, 2), progress=progress)
    total = len(flow.pairs())
    assert seen == [i / total for i in range(total + 1)]


def test_a_folder_holds_what_memory_would(tmp_path):
    kept = compute_video_flow(grey_frames(), FakeEstimator(), folder=tmp_path / "flow", max_side=40)
    memory = compute_video_flow(grey_frames(), FakeEstimator(), max_side=40)
    opened = open_video_flow(tmp_path / "flow")
    assert same_fields(kept, memory) and same_fields(opened, memory)
    assert (opened.image_height, opened.image_width, opened.num_frames) == (16, 48, 9)


def test_an_interrupted_computation_goes_on_where_it_ended(tmp_path):
    with pytest.raises(Interruption):
        compute_video_flow(grey_frames(), FakeEstimator(fail_at=20), folder=tmp_path, workers=1)
    left = len(list(tmp_path.glob("*.npz")))
    assert left == 19
    with pytest.raises(FlowError, match="lacks"):
        open_video_flow(tmp_path)
    again, seen = FakeEstimator(), []
    flow = compute_video_flow(grey_frames(), again, folder=tmp_path, progress=lambda stage, share: seen.append(share))
    fresh = compute_video_flow(grey_frames(), FakeEstimator())
    assert same_fields(flow, fresh)
    assert flow.reused == left and len(again.calls) == len(fresh.pairs()) - left
    assert seen[0] == left / len(fresh.pairs())
    third = FakeEstimator()
    assert compute_video_flow(grey_frames(), third, folder=tmp_path).reused == len(fresh.pairs())
    assert third.calls == []


def test_fields_of_other_frames_estimators_and_settings_are_never_mixed_in(tmp_path):
    frames = grey_frames()
    changed = frames.copy()
    changed[4, 7, 7, 1] += 1
    for frames_, options, version in (
        (frames, {}, 1),
        (changed, {}, 1),
        (changed, {}, 2),
        (changed, {"max_side": 40}, 2),
        (changed, {"guided": False}, 2),
        (changed[:8], {"guided": False}, 2),
    ):
        estimator = FakeEstimator(version=version)
        flow = compute_video_flow(frames_, estimator, folder=tmp_path, **options)
        assert flow.reused == 0 and len(estimator.calls) == len(flow.pairs()) > 0
        assert len(list(tmp_path.glob("*.npz"))) == len(estimator.calls)
        assert same_fields(flow, compute_video_flow(frames_, FakeEstimator(version=version), **options))


def test_strides_may_be_added_later(tmp_path):
    compute_video_flow(grey_frames(), FakeEstimator(), strides=(1, 2), folder=tmp_path)
    estimator = FakeEstimator()
    flow = compute_video_flow(grey_frames(), estimator, strides=(1, 2, 4), folder=tmp_path)
    assert {abs(s - t) for s, t in estimator.calls} == {4}
    assert same_fields(flow, compute_video_flow(grey_frames(), FakeEstimator(), strides=(1, 2, 4)))
    # fewer strides take what is there and lose nothing
    assert compute_video_flow(grey_frames(), estimator, strides=(1,), folder=tmp_path).reused == 16
    assert open_video_flow(tmp_path).strides() == (1, 2, 4)


def test_a_stride_that_would_be_guided_otherwise_is_computed_again(tmp_path):
    compute_video_flow(grey_frames(), FakeEstimator(), strides=(1, 4), folder=tmp_path)
    estimator = FakeEstimator()
    flow = compute_video_flow(grey_frames(), estimator, strides=(1, 2, 4), folder=tmp_path)
    assert (0, 4) in estimator.calls
    assert torch.equal(estimator.guesses[0, 4], flow.get(0, 2) + flow.get(2, 4))
    assert open_video_flow(tmp_path).strides() == (1, 2, 4)


def test_a_damaged_field_is_computed_again(tmp_path):
    first = compute_video_flow(grey_frames(), FakeEstimator(), folder=tmp_path)
    fields = sorted(tmp_path.glob("*.npz"))
    fields[3].write_bytes(fields[3].read_bytes()[:-30])
    fields[5].write_bytes(b"")
    estimator = FakeEstimator()
    flow = compute_video_flow(grey_frames(), estimator, folder=tmp_path)
    assert len(estimator.calls) == 2 and flow.reused == len(fields) - 2
    assert same_fields(flow, compute_video_flow(grey_frames(), FakeEstimator()))
    assert same_fields(flow, first)


def test_a_folder_of_another_origin_is_left_alone(tmp_path):
    (tmp_path / "00000_00001.npz").write_bytes(b"someone else's")
    with pytest.raises(FlowError, match="another origin"):
        compute_video_flow(grey_frames(), FakeEstimator(), folder=tmp_path)
    assert (tmp_path / "00000_00001.npz").read_bytes() == b"someone else's"


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}', ""])
def test_a_damaged_record_is_named(tmp_path, text):
    compute_video_flow(grey_frames(3), FakeEstimator(), strides=(1,), folder=tmp_path)
    (tmp_path / "flow.json").write_text(text)
    for call in (
        lambda: compute_video_flow(grey_frames(3), FakeEstimator(), strides=(1,), folder=tmp_path),
        lambda: open_video_flow(tmp_path),
    ):
        with pytest.raises(FlowError, match=r"flow\.json"):
            call()


def test_the_record_says_what_the_fields_are(tmp_path):
    compute_video_flow(grey_frames(), FakeEstimator(), strides=(1, 2), folder=tmp_path, max_side=40)
    record = json.loads((tmp_path / "flow.json").read_text())
    assert record["estimator"] == FakeEstimator().provenance()
    assert record["num_frames"] == 9 and record["image_size"] == [16, 48] and record["guides"] == {"1": [], "2": [1, 1]}


def test_an_error_in_a_worker_arrives():
    class Broken(FakeEstimator):
        def estimate(self, images0, images1, initial):
            raise FlowError("the estimator is broken.")

    with pytest.raises(FlowError, match="broken"):
        compute_video_flow(grey_frames(), Broken(), workers=3)


def test_bad_input_is_named(tmp_path):
    frames = grey_frames()
    for call, words in (
        (lambda: compute_video_flow(frames[:1], FakeEstimator()), "at least 2 frames"),
        (lambda: compute_video_flow(frames / 255, FakeEstimator()), "frame 0 must be RGB"),
        (lambda: compute_video_flow(frames[..., 0], FakeEstimator()), "frame 0 must be RGB"),
        (lambda: compute_video_flow([frames[0], frames[1, :10]], FakeEstimator()), "frame 1 is 48x10 but frame 0"),
        (lambda: compute_video_flow(frames, FakeEstimator(), strides=()), "strides"),
        (lambda: compute_video_flow(frames, FakeEstimator(), strides=(0, 1)), "strides"),
        (lambda: compute_video_flow(frames, FakeEstimator(), max_side=-3), "max_side"),
        (lambda: compute_video_flow(frames, FakeEstimator(), workers=0), "workers"),
        (lambda: compute_video_flow(frames, FakeEstimator(), max_side=20), "at least 8 px"),
        (lambda: open_video_flow(tmp_path), "does not exist"),
    ):
        with pytest.raises(UserError, match=words):
            call()


def test_dis_follows_a_pan_over_many_frames_only_when_guided():
    noise = np.random.default_rng(0).normal(size=(96, 320, 3))
    scene = sum(sigma * cv2.GaussianBlur(noise, (0, 0), sigma) for sigma in (1.5, 4, 8))
    scene = np.clip(128 + 50 * scene / scene.std(), 0, 255).astype(np.uint8)
    frames = [np.ascontiguousarray(scene[:, 8 * t : 8 * t + 160]) for t in range(9)]  # 8 px a frame to the left
    guided = compute_video_flow(frames, DISEstimator(), strides=(1, 2, 4, 8))
    direct = compute_video_flow(frames, DISEstimator(), strides=(8,))
    seen = slice(8, -8), slice(72, -8)
    errors = [(flow.get(0, 8)[seen] - torch.tensor([-64.0, 0.0])).norm(dim=-1).median() for flow in (guided, direct)]
    assert errors[0] < 1 < 10 < errors[1]


def test_files_can_be_read_from_many_threads(tmp_path):
    """numpy's own reader fails at random when threads parse headers at the same time (Python 3.11, gh-106905)."""
    for t in range(8):
        write_flow_file(flow_path(tmp_path, t, t + 1), torch.full((4, 5, 2), float(t)))
    with ThreadPoolExecutor(8) as executor:
        read = list(executor.map(lambda t: read_flow_file(flow_path(tmp_path, t % 8, t % 8 + 1))[0], range(800)))
    assert all(bool((flow == t % 8).all()) for t, flow in enumerate(read))
