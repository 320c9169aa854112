"""How long a video's flow takes to say which fields it holds: the first answer lists the folder, later ones do not.

python benchmarks/flow_index.py            # 1,000 frames, strides 1 2 4 8 16 both ways
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flow.video_flow import VideoFlow, flow_path


def milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--strides", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=20, help="the median counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stride in arguments.strides:
            for t in range(arguments.frames - stride):
                flow_path(folder, t, t + stride).touch()
                flow_path(folder, t + stride, t).touch()
        flow = VideoFlow(arguments.frames, (4, 6), folder=folder)
        print(f"first call {milliseconds(flow.pairs):.1f} ms, {len(flow.pairs())} fields")
        chosen = flow.select(range(0, arguments.frames, 2))
        for label, call in (
            ("pairs", flow.pairs),
            ("strides", flow.strides),
            ("pairs of every second frame", chosen.pairs),
            ("strides of every second frame", chosen.strides),
        ):
            print(f"{label}: {statistics.median(milliseconds(call) for _ in range(arguments.rounds)):.2f} ms")


if __name__ == "__main__":
    main()
