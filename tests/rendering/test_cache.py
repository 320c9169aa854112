"""Compiled kernels on disk: found again, thrown away when a source changes, and where they may lie."""

import os
import shutil
import stat

import numpy as np
import pytest

from som.rendering.cpu import cache


def fresh_kernel():
    def add_one(x):
        x[0] += 1

    return cache.kernel(add_one)


@pytest.fixture
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("SOM_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(cache._KernelCache, "_announced", False)
    return tmp_path / "kernels"


def test_second_process_finds_the_kernel_and_says_nothing(cache_dir, monkeypatch, caplog):
    x = np.zeros(1)
    fresh_kernel()(x)
    assert caplog.text.count("compiling") == 1
    caplog.clear()
    assert any(cache_dir.iterdir())
    monkeypatch.setattr(cache._KernelCache, "_announced", False)
    again = fresh_kernel()
    again(x)
    assert x[0] == 2
    assert sum(again.stats.cache_hits.values()) == 1
    assert "compiling" not in caplog.text


def test_a_changed_source_means_compiling_again(cache_dir, monkeypatch):
    x = np.zeros(1)
    fresh_kernel()(x)
    monkeypatch.setattr(cache, "sources_hash", lambda: "another")
    again = fresh_kernel()
    again(x)
    assert x[0] == 2 and sum(again.stats.cache_hits.values()) == 0


def test_hash_covers_every_module(tmp_path):
    folder = tmp_path / "cpu"
    shutil.copytree(cache._PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = cache.sources_hash(folder)
    for path in sorted(folder.glob("*.py")):
        path.write_text(path.read_text() + "\n")
        after = cache.sources_hash(folder)
        assert after != before, path.name
        before = after


def test_read_only_installation_falls_back_to_the_user(tmp_path, monkeypatch):
    package, home = tmp_path / "site-packages", tmp_path / "home"
    package.mkdir()
    monkeypatch.delenv("SOM_CACHE_DIR", raising=False)
    monkeypatch.setattr(cache, "_PACKAGE", package)
    monkeypatch.setattr(cache, "_user_cache_folder", lambda: home / "kernels")
    assert cache.cache_folder() == package / "__pycache__" / "kernels"
    shutil.rmtree(package / "__pycache__")
    (package / "__pycache__").write_text("a file where the folder would have to be")
    assert cache.cache_folder() == home / "kernels"
    home_blocked = tmp_path / "nothing"
    home_blocked.write_text("")
    monkeypatch.setattr(cache, "_user_cache_folder", lambda: home_blocked / "kernels")
    assert cache.cache_folder() is None
    x = np.zeros(1)
    fresh_kernel()(x)  # still works, uncached
    assert x[0] == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path, monkeypatch):
    package = tmp_path / "site-packages"
    package.mkdir()
    package.chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setattr(cache, "_PACKAGE", package)
    monkeypatch.setattr(cache, "_user_cache_folder", lambda: tmp_path / "home")
    assert cache.cache_folder() == tmp_path / "home"
