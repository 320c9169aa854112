"""``som4d`` itself: which commands there are, and that help is cheap."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import som
from som.commands.main import COMMANDS, dispatch

ROOT = Path(__file__).resolve().parents[2]


def test_commands_are_listed_in_a_line_each(capsys):
    assert dispatch(["--help"]) == 0 == dispatch([])
    shown = capsys.readouterr().out.splitlines()
    assert [sum(line.split()[:1] == [name] for line in shown) for name in COMMANDS] == [2] * len(COMMANDS)


def test_version(capsys):
    assert dispatch(["--version"]) == 0
    assert capsys.readouterr().out == f"som4d {som.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "som4d: there is no command trian; did you mean train?"),
        (["depth", "predicct"], "som4d depth: there is no command predicct; did you mean predict?"),
        (["xyz"], "there are preprocess, check, train, val, depth, flow."),
        (["train", "data:custom", "--data.stride", "2"], "--data.stride: this option is called --data.every now."),
        (["val", "--out-dir", "x"], "--out-dir: this option is called --output now."),
        (["train", "--config", "nonsense", "data:demo"], "--config nonsense: no such preset or file"),
        (["flow", "tracks", "clip", "--stop", "1"], "--stop: this option is called --end now."),
        (["val", "--threads", "-1"], "--threads: must be 0 or positive, got -1."),
    ],
)
def test_mistakes_are_one_sentence(words, message, capsys):
    assert dispatch(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["run_training.py"],
        ["run_training.py", "data:custom"],
        ["run_val.py"],
        ["run_preprocess.py"],
        ["run_preprocess.py", "check"],
        ["run_depth.py"],
        ["run_depth.py", "predict"],
    ],
)
@pytest.mark.parametrize("help_", ["--help", "--help-all"])
def test_help_loads_nothing_heavy_and_answers_quickly(command, help_):
    if command == ["run_depth.py"] and help_ == "--help-all":
        pytest.skip("the commands of depth have it")
    code = (
        f"import sys, runpy; sys.argv = {[*command, help_]}\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'numba', 'gsplat', 'cv2'} & set(sys.modules)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout
    assert time.monotonic() - began < 10  # a second on an idle machine; the assertion above is what keeps it so
