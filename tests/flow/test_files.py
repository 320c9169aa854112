"""Flow files of Middlebury and KITTI."""

import struct
import zlib

import pytest
import torch

from flow.errors import FlowError, UserError
from flow.files import read_flow, write_flow


def png16(width, height, samples):
    """A 16-bit RGB png, byte by byte; ``samples`` are rows of (r, g, b)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"".join(struct.pack(">HHH", *pixel) for pixel in row) for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def random_flow(height=5, width=7):
    generator = torch.Generator().manual_seed(0)
    flow = torch.randn(height, width, 2, generator=generator) * 20
    return flow, torch.rand(height, width, generator=generator) < 0.7


def test_a_flo_file_made_by_hand(tmp_path):
    values = [1.5, -2.0, 3.0, 4.0, 1.7e9, 0.0, 5.0, 6.0, 7.0, float("nan"), 0.25, 0.5]
    path = tmp_path / "a.flo"
    path.write_bytes(struct.pack("<f", 202021.25) + struct.pack("<ii", 3, 2) + struct.pack("<12f", *values))
    flow, valid = read_flow(path)
    assert flow.shape == (2, 3, 2) and flow.dtype == torch.float32
    assert (
        flow[0, 0].tolist() == [1.5, -2.0] and flow[0, 1].tolist() == [3.0, 4.0] and flow[1, 2].tolist() == [0.25, 0.5]
    )
    assert valid.tolist() == [[True, True, False], [True, False, True]]
    assert (flow[~valid] == 0).all()


def test_a_flo_file_is_exact_and_has_the_published_layout(tmp_path):
    flow, valid = random_flow()
    write_flow(tmp_path / "deep" / "a.flo", flow, valid)
    data = (tmp_path / "deep" / "a.flo").read_bytes()
    assert data[:4] == b"PIEH" and struct.unpack("<ii", data[4:12]) == (7, 5) and len(data) == 12 + 5 * 7 * 8
    again, known = read_flow(tmp_path / "deep" / "a.flo")
    assert torch.equal(known, valid)
    assert torch.equal(again[valid], flow[valid])


def test_a_kitti_file_made_by_hand(tmp_path):
    # u = (R - 2^15) / 64, v = (G - 2^15) / 64, known where B is not 0
    rows = [[(32768 + 64, 32768 - 32, 1), (32768, 32768 + 640, 1)], [(0, 0, 0), (65535, 0, 1)]]
    path = tmp_path / "a.png"
    path.write_bytes(png16(2, 2, rows))
    flow, valid = read_flow(path)
    assert flow[0, 0].tolist() == [1.0, -0.5] and flow[0, 1].tolist() == [0.0, 10.0]
    assert flow[1, 1].tolist() == [32767 / 64, -512.0]
    assert valid.tolist() == [[True, True], [False, True]] and flow[1, 0].tolist() == [0.0, 0.0]


def test_a_kitti_file_holds_steps_of_a_64th(tmp_path):
    flow, valid = random_flow()
    write_flow(tmp_path / "a.png", flow, valid)
    again, known = read_flow(tmp_path / "a.png")
    assert torch.equal(known, valid)
    assert (again - flow)[valid].abs().max() <= 0.5 / 64
    write_flow(tmp_path / "b.png", again, known)
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_the_ends_of_the_kitti_range(tmp_path):
    flow = torch.tensor([[[-512.0, 32767 / 64]]])
    write_flow(tmp_path / "a.png", flow)
    assert torch.equal(read_flow(tmp_path / "a.png")[0], flow)
    for value in (-512.1, 512.0):
        with pytest.raises(FlowError, match="KITTI files hold"):
            write_flow(tmp_path / "b.png", torch.full((1, 1, 2), value))


@pytest.mark.parametrize("suffix", ["flo", "png"])
def test_unknown_flow_may_be_anything_but_known_flow_must_be_finite(tmp_path, suffix):
    flow = torch.tensor([[[1.0, 2.0], [torch.nan, torch.inf]]])
    write_flow(tmp_path / f"a.{suffix}", flow, torch.tensor([[True, False]]))
    again, known = read_flow(tmp_path / f"a.{suffix}")
    assert again.tolist() == [[[1.0, 2.0], [0.0, 0.0]]] and known.tolist() == [[True, False]]
    with pytest.raises(FlowError, match="finite"):
        write_flow(tmp_path / f"b.{suffix}", flow)
    assert not (tmp_path / f"b.{suffix}").exists()


def test_broken_files_are_refused(tmp_path):
    flow, _ = random_flow()
    write_flow(tmp_path / "good.flo", flow)
    good = (tmp_path / "good.flo").read_bytes()
    write_flow(tmp_path / "good.png", flow)
    broken = {
        "magic.flo": b"XXXX" + good[4:], "short.flo": good[:-1], "long.flo": good + b"\0", "head.flo": good[:9],
        "negative.flo": good[:4] + struct.pack("<ii", -7, -5) + good[12:], "empty.flo": b"", "empty.png": b"",
        "cut.png": (tmp_path / "good.png").read_bytes()[:40], "text.png": b"no image at all",
    }  # fmt: skip
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            read_flow(tmp_path / name)


def test_a_picture_of_flow_is_not_kitti_flow(tmp_path):
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(FlowError, match="16-bit"):
        read_flow(tmp_path / "a.png")


def test_other_endings_missing_files_and_shapes(tmp_path):
    flow, valid = random_flow()
    for call, words in (
        (lambda: read_flow(tmp_path / "a.flo"), "cannot be read"),
        (lambda: read_flow(tmp_path / "a.pfm"), "can be read"),
        (lambda: write_flow(tmp_path / "a.jpg", flow), "must end in"),
        (lambda: write_flow(tmp_path / "a.flo", flow[..., 0]), "shape"),
        (lambda: write_flow(tmp_path / "a.flo", flow, valid[:3]), "valid"),
        (lambda: write_flow(tmp_path / "a.flo", flow * 1e10), "up to"),
    ):
        with pytest.raises(FlowError, match=words):
            call()
