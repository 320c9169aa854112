"""The whole network against a second, independent one: written with functions only, from the published code's names
and conventions (all-pairs volume, ``grid_sample`` with corners aligned, flow as a difference of coordinates)."""

import pytest
import torch
import torch.nn.functional as F


class Reference:
    """RAFT from a state dict with the published names."""

    def __init__(self, state: dict):
        self.state = state
        self.small = "update_block.gru.convz.weight" in state

    def conv(self, name, x, stride=1):
        weight = self.state[name + ".weight"]
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
        return F.conv2d(x, weight, self.state[name + ".bias"], stride, padding)

    def norm(self, name, x):
        if name.startswith("fnet"):
            return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        if self.small:
            return x
        mean, var, gain, bias = (
            self.state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gain + bias

    def encode(self, net, x):
        x = self.norm(f"{net}.norm1", self.conv(f"{net}.conv1", x, 2)).relu()
        strided = 2 if self.small else 1  # the convolution of a block that has the stride
        for layer, block in ((layer, block) for layer in (1, 2, 3) for block in (0, 1)):
            name, stride = f"{net}.layer{layer}.{block}", 2 if (layer > 1 and block == 0) else 1
            y = x
            for i in range(1, 4 if self.small else 3):
                y = self.norm(f"{name}.norm{i}", self.conv(f"{name}.conv{i}", y, stride if i == strided else 1)).relu()
            if stride == 2:
                x = self.norm(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, 2))
            x = (x + y).relu()
        return self.conv(f"{net}.conv2", x)

    def correlate(self, f0, f1, coords):
        B, C, h, w = f0.shape
        r = 3 if self.small else 4
        volume = torch.einsum("bcij,bckl->bijkl", f0, f1).reshape(B * h * w, 1, h, w) / C**0.5
        offset = torch.arange(-r, r + 1, dtype=f0.dtype)
        offsets = torch.stack(torch.meshgrid(offset, offset, indexing="ij"), dim=-1)  # first index along x
        levels = []
        for level in range(4):
            H, W = volume.shape[2:]
            at = coords.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2) / 2**level + offsets
            grid = 2 * at / torch.tensor([W - 1, H - 1]) - 1
            levels.append(F.grid_sample(volume, grid, align_corners=True).view(B, h, w, -1))
            volume = F.avg_pool2d(volume, 2)
        return torch.cat(levels, dim=-1).permute(0, 3, 1, 2)

    def gru(self, h, x):
        for i in [""] if self.small else ["1", "2"]:
            gate = {k: self.conv(f"update_block.gru.conv{k}{i}", torch.cat((h, x), 1)).sigmoid() for k in "zr"}
            q = self.conv(f"update_block.gru.convq{i}", torch.cat((gate["r"] * h, x), 1)).tanh()
            h = h + gate["z"] * (q - h)
        return h

    def motion(self, flow, seen):
        for i in [1] if self.small else [1, 2]:
            seen = self.conv(f"update_block.encoder.convc{i}", seen).relu()
        moved = flow
        for i in (1, 2):
            moved = self.conv(f"update_block.encoder.convf{i}", moved).relu()
        return torch.cat((self.conv("update_block.encoder.conv", torch.cat((seen, moved), 1)).relu(), flow), 1)

    def upsample(self, flow, h):
        size = (8 * flow.shape[2], 8 * flow.shape[3])
        if self.small:
            return 8 * F.interpolate(flow, size, mode="bilinear", align_corners=True)
        mask = 0.25 * self.conv("update_block.mask.2", self.conv("update_block.mask.0", h).relu())
        mask = mask.unflatten(1, (9, 8, 8)).softmax(dim=1)
        neighbours = F.unfold(8 * flow, 3, padding=1).unflatten(1, (2, 9)).unflatten(3, flow.shape[2:])
        return torch.einsum("bkijyx,bckyx->bcyixj", mask, neighbours).reshape(len(flow), 2, *size)

    def __call__(self, image0, image1, iterations):
        f0, f1 = self.encode("fnet", image0), self.encode("fnet", image1)
        h, context = self.encode("cnet", image0).split((96, 64) if self.small else (128, 128), dim=1)
        h, context = h.tanh(), context.relu()
        y, x = torch.meshgrid(*(torch.arange(n, dtype=f0.dtype) for n in f0.shape[2:]), indexing="ij")
        coords0 = torch.stack((x, y))[None]
        coords1 = coords0.repeat(len(f0), 1, 1, 1)
        for _ in range(iterations):
            seen, flow = self.correlate(f0, f1, coords1), coords1 - coords0
            h = self.gru(h, torch.cat((context, self.motion(flow, seen)), 1))
            change = self.conv("update_block.flow_head.conv1", h).relu()
            coords1 = coords1 + self.conv("update_block.flow_head.conv2", change)
        return self.upsample(coords1 - coords0, h)


@pytest.mark.parametrize("kind", ["full", "on_demand"])
@torch.no_grad()
def test_network_equals_the_reference(make_raft, images, variant, kind, to_published_names):
    model = make_raft(variant).double()
    # Long flow, so that many windows lie across the border.
    model.update_block.flow_head.conv2.weight *= 8
    reference = Reference(to_published_names(model.state_dict()))
    pair = images(128, 144, dtype=torch.float64)
    flow, expected = model(*pair, 4, correlation=kind), reference(*pair, 4)
    assert expected.abs().amax() > 16
    torch.testing.assert_close(flow, expected, rtol=0, atol=1e-9)
