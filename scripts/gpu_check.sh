#!/usr/bin/env bash
# Checks this project on a machine with an NVIDIA GPU: builds gsplat's kernels, runs the tests that need a GPU (they
# compare it with the CPU), and measures the rasteriser. Uses the Python that is active, and installs nothing.
#
#   scripts/gpu_check.sh            # all of it, a few minutes; gsplat compiles its kernels the first time
#   PYTHON=/path/to/python scripts/gpu_check.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="${PYTHON:-python}"

if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "$PYTHON has no torch that can use an NVIDIA GPU: there is nothing to check here." >&2
    exit 1
fi
"$PYTHON" - <<'PYTHON_END'
import torch

print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
PYTHON_END

echo "== gsplat's kernels (compiled on first use) =="
"$PYTHON" - <<'PYTHON_END'
import torch

from som.rendering import rasterize

device = "cuda"
renders, alphas, info = rasterize(
    torch.tensor([[0.0, 0.0, 4.0]], device=device, requires_grad=True),
    torch.tensor([[1.0, 0.0, 0.0, 0.0]], device=device),
    torch.full((1, 3), 0.5, device=device),
    torch.tensor([0.6], device=device),
    torch.ones(1, 3, device=device),
    torch.eye(4, device=device)[None],
    torch.tensor([[[8.0, 0.0, 8.0], [0.0, 8.0, 8.0], [0.0, 0.0, 1.0]]], device=device),
    16,
    16,
)
renders.sum().backward()
assert 0.5 < alphas.max().item() < 0.61, alphas.max()
print("one Gaussian drawn and differentiated")
PYTHON_END

echo "== tests that need a GPU =="
"$PYTHON" -m pytest -n 0 -m gpu tests

echo "== speed =="
"$PYTHON" benchmarks/rasterizer.py --device both --repeats 15
"$PYTHON" benchmarks/depth_step_time.py --device cuda

echo "All GPU checks passed."
