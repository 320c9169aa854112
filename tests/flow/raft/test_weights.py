"""Weight files: both naming schemes, the published names, and everything that can be wrong with a file."""

import hashlib
import json
import os
import pickle
import re
import shutil
import urllib.error
from pathlib import Path

import pytest
import torch

from flow.errors import FlowError
from flow.raft import weights as raft_weights
from flow.raft.model import RAFT
from flow.raft.weights import DEFAULT, PUBLISHED, load_raft, to_torchvision_names

KEYS = Path(__file__).parents[3].parent / "shared" / "keys"
needs_keys = pytest.mark.skipif(not KEYS.is_dir(), reason="listings of the published files are not at hand")


@pytest.fixture
def save(tmp_path):
    """Writes an object with torch.save; returns the file."""

    def write(content, name="weights.pth", **options) -> Path:
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return write


@pytest.mark.parametrize("prefix", ["", "module."])
@torch.no_grad()
def test_both_naming_schemes_give_the_same_flow(make_raft, images, variant, prefix, save, to_published_names):
    model = make_raft(variant)
    ours = load_raft(save({prefix + name: tensor for name, tensor in model.state_dict().items()}))
    published = load_raft(save(to_published_names(model.state_dict(), prefix), "published.pth"))
    assert (ours.model.variant, published.model.variant) == (variant, variant)
    expected = model(*images(), 2)
    assert torch.equal(ours.model(*images(), 2), expected)
    assert torch.equal(published.model(*images(), 2), expected)


@needs_keys
def test_published_listings_load_strictly(variant, save):
    """Every tensor of the listings, filled with its own value, arrives at the place that the mapping says."""
    size = variant.removeprefix("raft-")
    mapping = json.loads((KEYS / "princeton_to_torchvision.json").read_text())[size]

    def filled(listing):
        shapes = json.loads((KEYS / listing).read_text())
        integer = "num_batches_tracked"
        return {
            name: torch.full(shape, i, dtype=torch.int64 if integer in name else torch.float32)
            for i, (name, shape) in enumerate(shapes.items())
        }

    theirs, ours = filled(f"princeton_{size}.json"), filled(f"torchvision_raft_{size}.json")
    assert (len(theirs), len(ours)) == {"large": (179, 169), "small": (106, 106)}[size]
    loaded = load_raft(save(theirs), variant).model.state_dict()
    expected = {mapping[name.removeprefix("module.")]: tensor for name, tensor in theirs.items()}
    expected.pop(None, None)
    assert loaded.keys() == ours.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    loaded = load_raft(save(ours), variant).model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in ours.items())


def test_names_already_in_torchvisions_scheme_stay(variant, to_published_names):
    state = RAFT(variant).state_dict()
    assert list(to_torchvision_names(state)) == list(state)
    assert list(to_torchvision_names(to_published_names(state, "module."))) == list(state)


def test_what_a_file_may_look_like(make_raft, save):
    """Training checkpoints that hold the weights under a name, torch's old file format, half precision."""
    model = make_raft("raft-small")
    state = model.state_dict()
    files = [
        save({"model": state, "epoch": 3}, "a.pth"),
        save({"state_dict": state}, "b.pth"),
        save(state, "c.pth", _use_new_zipfile_serialization=False),
    ]
    for file in files:
        loaded = load_raft(file).model.state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    half = load_raft(save({name: tensor.half() for name, tensor in state.items()}, "d.pth")).model
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}


def test_loading_says_what_was_loaded_and_draws_no_random_numbers(make_raft, save, variant):
    file = save(make_raft(variant).state_dict(), "mine.pth")
    before = torch.get_rng_state()
    loaded = load_raft(file)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.file == "mine.pth"
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not loaded.model.training
    assert loaded.model.variant == variant


class Foreign:
    """An object that a safe loader must not construct."""

    def __reduce__(self):
        return (os.getcwd, ())


def bad_files(state: dict) -> dict:
    """Contents of bad files (bytes, or objects for torch.save) and what the message must say."""
    name = "update_block.flow_head.conv2.weight"
    without = {key: tensor for key, tensor in state.items() if key != name}
    nan = state[name].clone()
    nan[0, 0, 0, 0] = torch.nan
    return {
        "empty": (b"", "not a PyTorch file"),
        "text": (b"version https://git-lfs.github.com/spec/v1\n", "not a PyTorch file"),
        "html": (b"<!DOCTYPE html><html>404</html>", "not a PyTorch file"),
        "image": (b"\x89PNG\r\n\x1a\n" + bytes(1000), "not a PyTorch file"),
        "pickle": (pickle.dumps(Foreign(), protocol=2), "not a PyTorch file"),
        "objects": ({"model": state, "args": Foreign()}, "other objects than tensors"),
        "list": (list(state.values()), "no state dict but list"),
        "nothing": ({}, "no state dict"),
        "numbers": ({"a": 1, "b": 2}, "other things than named tensors"),
        "other network": ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, 'no RAFT weights .*"conv1.weight"'),
        "one missing": (without, f'1 of its tensors .* 0 do not .*"{name}"'),
        "one of another shape": (state | {name: torch.zeros(3, 128, 3, 3)}, f'1 of its .* 1 do not .*"{name}"'),
        "one of another type": (state | {name: state[name].long()}, f'1 of its .*"{name}"'),
        "one too many": (state | {"extra.weight": torch.zeros(1)}, '0 of its .* 1 do not .*"extra.weight"'),
        "not finite": (state | {name: nan}, f'not finite .*"{name}"'),
    }


@pytest.mark.parametrize("kind", bad_files(RAFT("raft-small").state_dict()))
def test_bad_files_are_one_clear_sentence(kind, make_raft, tmp_path, save):
    content, message = bad_files(make_raft("raft-small").state_dict())[kind]
    if isinstance(content, bytes):
        file = tmp_path / "weights.pth"
        file.write_bytes(content)
    else:
        file = save(content)
    with pytest.raises(FlowError, match=message) as error:
        load_raft(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_file(share, make_raft, save):
    file = save(make_raft("raft-small").state_dict())
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FlowError, match="truncated"):
        load_raft(file)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FlowError, match="raft_large_C_T_SKHT_V2"):
        load_raft(tmp_path / "nowhere.pth")
    with pytest.raises(FlowError, match="cannot be read"):
        load_raft(tmp_path)


def test_the_wrong_variant(make_raft, save):
    file = save(make_raft("raft-small").state_dict())
    with pytest.raises(FlowError, match="holds weights of raft-small, not raft-large"):
        load_raft(file, "raft-large")
    with pytest.raises(FlowError, match="weights of raft-large, not raft-small"):
        load_raft("raft_large_C_T_V2", "raft-small")
    with pytest.raises(FlowError, match="raft-tiny"):
        load_raft(file, "raft-tiny")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub folder; returns the folder of downloaded files."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_published_weights_are_downloaded_once_and_checked(make_raft, save, variant, hub, monkeypatch):
    source = save(make_raft(variant).state_dict(), "source.pth")
    name, sha256 = DEFAULT[variant], hashlib.sha256(source.read_bytes()).hexdigest()
    url = f"https://download.pytorch.org/models/{name}-{sha256[:8]}.pth"
    monkeypatch.setitem(PUBLISHED, name, raft_weights.PublishedWeights(variant, sha256[:8], "none"))
    calls = []

    def download(url, target, hash_prefix, progress):
        calls.append((url, hash_prefix))
        shutil.copy(source, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    by_name, by_variant = load_raft(name), load_raft(None, variant)
    assert calls == [(url, sha256[:8])]
    assert by_name.sha256 == by_variant.sha256 == sha256
    assert by_name.file == f"{name}-{sha256[:8]}.pth"
    (hub / by_name.file).write_bytes(b"spoilt")
    with pytest.raises(FlowError, match="delete it"):
        load_raft(name)


@pytest.mark.parametrize(
    "failure",
    [urllib.error.URLError("no route"), TimeoutError("timed out"), RuntimeError("invalid hash value")],
    ids=lambda failure: type(failure).__name__,
)
def test_a_failed_download_says_where_the_file_belongs(failure, hub, monkeypatch):
    def download(*_, **__):
        raise failure

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(FlowError) as error:
        load_raft("raft_small_C_T_V2")
    file = "raft_small_C_T_V2-01064c6d.pth"
    for part in ("could not be downloaded", f"https://download.pytorch.org/models/{file}", str(hub / file)):
        assert part in str(error.value)


def test_published_names_tell_their_variant():
    assert set(DEFAULT.values()) <= PUBLISHED.keys()
    for name, published in PUBLISHED.items():
        assert name.startswith(published.variant.replace("-", "_") + "_")
        assert re.fullmatch(r"[0-9a-f]{8}", published.sha256)
