"""Random networks. No published weights are at hand in tests, so nothing here says how good the flow is."""

import re

import pytest
import torch
from torch import nn

from flow.raft.model import RAFT

VARIANTS = ("raft-large", "raft-small")


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small for several threads, which on a busy machine mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_raft():
    """A network in evaluation mode with random weights and batch statistics; the same for the same seed."""

    def make(variant: str, seed: int = 0) -> RAFT:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = RAFT(variant)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 2)
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, 0, 0.1)
        return model.eval()

    return make


@pytest.fixture(params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture
def images():
    """Two batches of random images (B,3,H,W) in [-1, 1]."""

    def make(height: int = 128, width: int = 136, batch: int = 1, dtype=torch.float32):
        generator = torch.Generator().manual_seed(0)
        return (torch.rand(2, batch, 3, height, width, generator=generator, dtype=dtype) * 2 - 1).unbind(0)

    return make


def _to_published_names(state: dict, prefix: str = "") -> dict:
    """Our state dict as the published code would save it, with the second names of the shortcuts' norms."""
    rules = [
        (r"^feature_encoder", "fnet"),
        (r"^context_encoder", "cnet"),
        (r"^(.net)\.conv\.", r"\1.conv2."),
        (r"^(.net)\.convnormrelu\.0", r"\1.conv1"),
        (r"^(.net)\.convnormrelu\.1", r"\1.norm1"),
        (r"convnormrelu(\d)\.0", r"conv\1"),
        (r"convnormrelu(\d)\.1", r"norm\1"),
        (r"motion_encoder\.convcorr(\d)\.0", r"encoder.convc\1"),
        (r"motion_encoder\.convflow(\d)\.0", r"encoder.convf\1"),
        (r"motion_encoder\.conv\.0", "encoder.conv"),
        (r"mask_predictor\.convrelu\.0", "update_block.mask.0"),
        (r"mask_predictor\.conv\.", "update_block.mask.2."),
    ]
    single = not any("convgru2" in name for name in state)
    rules.append((r"recurrent_block\.convgru(\d)\.(conv.)", r"gru.\2" if single else r"gru.\2\1"))
    published = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        published[prefix + name] = tensor
        if name.startswith("cnet.") and ".downsample.1." in name:
            published[prefix + name.replace("downsample.1", "norm3")] = tensor
    return published


@pytest.fixture
def to_published_names():
    return _to_published_names
