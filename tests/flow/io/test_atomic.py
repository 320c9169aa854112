"""Files are written whole or not at all."""

import pytest

from flow.io.atomic import atomic_path, link_file, write_bytes, write_together


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_path(path, durable=True) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_temporary_names_are_found_by_no_suffix_unless_asked_for(tmp_path):
    with atomic_path(tmp_path / "a.npz") as temporary:
        assert temporary.suffix == ".tmp"
        temporary.write_bytes(b"x")
    with atomic_path(tmp_path / "a.mp4", keep_suffix=True) as temporary:
        assert temporary.suffix == ".mp4"
        temporary.write_bytes(b"y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.npz"]


def test_several_files_are_all_staged_before_any_is_replaced(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        write_together({tmp_path / "a": b"new", tmp_path / "file" / "b": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old"
    write_together({tmp_path / "a": b"new", tmp_path / "c" / "b": b"new"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "file"]


def test_a_link_replaces_what_was_there_and_itself(tmp_path):
    write_bytes(tmp_path / "a", b"1")
    write_bytes(tmp_path / "b", b"2")
    for _ in range(2):
        link_file(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
