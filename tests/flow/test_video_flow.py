"""Which fields a video's flow says that it holds."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from flow.video_flow import VideoFlow, flow_path, list_pairs, write_flow_file

SIZE = (4, 6)
FIELD = torch.zeros(*SIZE, 2)


@pytest.mark.parametrize("on_disk", [True, False])
def test_pairs_are_in_order_and_follow_what_is_put(tmp_path, on_disk):
    flow = VideoFlow(5, SIZE, folder=tmp_path / "flow" if on_disk else None)
    assert flow.pairs() == [] and flow.strides() == () and (0, 1) not in flow
    for pair in ((3, 1), (0, 1), (1, 0), (0, 1)):
        flow.put(*pair, FIELD)
    assert flow.pairs() == [(0, 1), (1, 0), (3, 1)] and flow.strides() == (1, 2)
    assert (3, 1) in flow and (1, 3) not in flow


def test_the_folder_is_listed_once(tmp_path, monkeypatch):
    write_flow_file(flow_path(tmp_path, 0, 1), FIELD)
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    flow = VideoFlow(5, SIZE, folder=tmp_path)
    for _ in range(3):
        assert flow.pairs() == [(0, 1)] and flow.strides() == (1,) and (0, 1) in flow and (1, 0) not in flow
    assert flow.select([1, 0]).pairs() == [(1, 0)]
    flow.put(1, 0, FIELD)
    assert flow.pairs() == [(0, 1), (1, 0)] and len(listed) == 1
    # what others write is seen by a new object
    write_flow_file(flow_path(tmp_path, 2, 4), FIELD)
    assert (2, 4) not in flow and VideoFlow(5, SIZE, folder=tmp_path).strides() == (1, 2)


def test_only_fields_of_the_video_count(tmp_path):
    for name in ("00000_00001.npz", "00007_00008.npz", "100000_00001.npz"):
        write_flow_file(tmp_path / name, FIELD)
    for name in ("flow.json", "0_1.npz", "000000_000001.npz", ".00001_00002.npz.17.3.tmp", "00001_00002.npz.bak"):
        (tmp_path / name).touch()
    assert list_pairs(tmp_path) == [(0, 1), (7, 8), (100000, 1)]
    assert VideoFlow(8, SIZE, folder=tmp_path).pairs() == [(0, 1)]


def test_threads_may_put_while_the_folder_is_listed(tmp_path):
    flow = VideoFlow(40, SIZE, folder=tmp_path)
    with ThreadPoolExecutor(4) as executor:
        for _ in executor.map(lambda t: (flow.put(t, t + 1, FIELD), flow.strides()), range(39)):
            pass
    assert flow.pairs() == [(t, t + 1) for t in range(39)]


def test_a_selection_has_the_pairs_of_its_frames_under_new_numbers(tmp_path):
    flow = VideoFlow(6, SIZE, folder=tmp_path)
    for pair in ((0, 2), (2, 0), (2, 5), (1, 2)):
        flow.put(*pair, FIELD)
    chosen = flow.select([5, 2, 0])
    assert chosen.pairs() == [(1, 0), (1, 2), (2, 1)] and chosen.strides() == (1,) and (2, 1) in chosen
    chosen.put(0, 1, FIELD)
    assert (0, 1) in chosen and (5, 2) in flow
