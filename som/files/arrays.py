"""Arrays on disk: .npy and .npz."""

from flow.io.arrays import read_npz, write_npz

__all__ = ["read_npz", "write_npz"]
