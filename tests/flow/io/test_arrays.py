import numpy as np
import pytest

from flow.errors import UserError
from flow.io.arrays import array_shapes, read_array, read_arrays, read_npz, write_array, write_npz


def test_arrays_round_trip(tmp_path):
    values = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(True)}
    write_npz(tmp_path / "new" / "a.npz", values)
    assert array_shapes(tmp_path / "new" / "a.npz") == {"a": (2, 3), "b": ()}
    for found in (read_npz(tmp_path / "new" / "a.npz"), read_arrays(tmp_path / "new" / "a.npz", ("a",), ("b", "c"))):
        assert found.keys() == values.keys() and all((found[name] == values[name]).all() for name in values)
    write_array(tmp_path / "a.npy", values["a"])
    assert (read_array(tmp_path / "a.npy") == values["a"]).all() and array_shapes(tmp_path / "a.npy") == {"": (2, 3)}


def test_what_cannot_be_used_is_named(tmp_path):
    write_npz(tmp_path / "a.npz", {"a": np.zeros(2), "names": np.array(["x"])})
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    for call, message in (
        (lambda: read_arrays(tmp_path / "a.npz", ("a", "b"), what="this file"), r"this file lacks b \(has a, names\)"),
        (lambda: read_arrays(tmp_path / "a.npz", ("names",)), "names must hold numbers"),
        (lambda: read_arrays(tmp_path / "broken.npz", ()), r"broken\.npz: this file of arrays cannot be read"),
        (lambda: read_arrays(tmp_path / "none.npz", ()), "is missing"),
        (lambda: read_array(tmp_path / "objects.npy"), r"objects\.npy: this array cannot be read"),
        (lambda: array_shapes(tmp_path / "none.npy"), "is missing"),
    ):
        with pytest.raises(UserError, match=message):
            call()
