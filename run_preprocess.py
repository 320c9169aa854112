"""Turns a video into a data set folder: python run_preprocess.py clip.mp4 --output data/clip

`run_preprocess.py check <folder>` instead lists everything that is wrong with a data set folder of any layout.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from som import cli
from som.preprocessing.config import CheckRun, PreprocessRun


def main(argv: Sequence[str]) -> int:
    if argv[:1] == ["check"]:
        command = cli.parse(CheckRun, argv[1:], "Lists everything that is wrong with a data set folder.")
        from som.preprocessing.check import check_folder, render_check

        result = check_folder(command.folder, command.seq_name)
        print(render_check(result))
        return 0 if result.ok else 1
    run = cli.parse(PreprocessRun, argv, __doc__)
    # numpy's BLAS gains nothing from threads on the small systems of the camera estimate, and its idle threads spin:
    # beside another busy process they made it fifteen times slower
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from som.preprocessing.pipeline import preprocess  # torch and its kin, only after parsing

    return preprocess(run)


if __name__ == "__main__":
    cli.run(main)
