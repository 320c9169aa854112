"""The wheel that is installed holds all that the commands need, wherever they are called."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import som

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_wheel_is_complete_and_runs_beside_modules_of_the_same_names(tmp_path):
    source = tmp_path / "source"
    for name in ("som", "flow", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True)
    wheel = tmp_path / f"som4d-{som.__version__}-py3-none-any.whl"

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        scripts = archive.read(f"som4d-{som.__version__}.dist-info/entry_points.txt").decode()
        archive.extractall(tmp_path / "installed")
    wanted = {p.relative_to(ROOT).as_posix() for top in ("som", "flow") for p in (ROOT / top).rglob("*.py")}
    wanted |= {f"som/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "configs").rglob("*.yaml")}
    wanted |= {"som/py.typed", "flow/py.typed"}
    assert {n for n in names if ".dist-info" not in n} == wanted
    assert "som4d = som.commands.main:main" in scripts

    (tmp_path / "user").mkdir()
    for name in ("depth.py", "flow.py"):
        (tmp_path / "user" / name).write_text("raise RuntimeError('a module of the user')\n")
    # as the console script does: its own folder, and not the current one, comes before the installed packages
    script = tmp_path / "som4d"
    script.write_text(
        f"import sys; sys.path.insert(1, {str(tmp_path / 'installed')!r})\nfrom som.commands.main import main\nmain()\n"
    )
    command = [sys.executable, script, "train", "--config", "nonsense", "data:demo"]
    done = subprocess.run(command, cwd=tmp_path / "user", capture_output=True, text=True)
    assert done.returncode == 2 and "presets are ablation/cross_frame" in done.stderr, done.stderr
