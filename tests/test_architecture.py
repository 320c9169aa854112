"""The house of docs/architecture.md: imports run one way, and what is done in one place is done there only."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    {"flow"},
    {"som.cameras", "som.errors", "som.files", "som.reductions", "som.runs", "som.settings"},
    {"som.data", "som.losses", "som.rendering", "som.scene"},
    {"som.correspondence", "som.depth", "som.initialization"},
    {"som.evaluation", "som.preprocessing", "som.training"},
    {"som", "som.commands"},
)
"""From the ground up; ``som`` itself is the public interface."""
ONE_PLACE = {
    "os.replace": {"flow.io.atomic"},
    "os.rename": set(),
    "cv2.imread": set(),
    "cv2.imwrite": set(),
    "cv2.imdecode": {"flow.io.images"},
    "cv2.imencode": {"flow.io.images"},
    "cv2.VideoCapture": set(),
    "imageio_ffmpeg.get_ffmpeg_exe": {"flow.io.video"},
    "imageio.get_writer": {"som.rendering.video"},
    "torch.save": {"som.runs.checkpoint"},
    "np.savez": set(),
    "np.savez_compressed": {"flow.io.arrays"},
}
"""Which modules may use a function."""


@cache
def modules() -> dict[str, ast.Module]:
    """All modules by name; a package by that of its __init__.py."""
    found = {}
    for file in sorted((*(ROOT / "flow").rglob("*.py"), *(ROOT / "som").rglob("*.py"))):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def package(module: str) -> str:
    """What stands on a floor: ``flow`` whole, of ``som`` its packages."""
    parts = module.split(".")
    return parts[0] if parts[0] == "flow" else ".".join(parts[:2])


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """The modules of ours that import statements name."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= members & modules().keys() or {node.module}
    return names & modules().keys()


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: nothing in functions, nothing for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from (inner for other in node.orelse for inner in (other, *at_import(other)))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from at_import(node)


def test_every_package_stands_on_one_floor():
    assert {package(module) for module in modules()} == set().union(*FLOORS)
    assert sum(map(len, FLOORS)) == len(set().union(*FLOORS))


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_no_module_imports_from_a_floor_above(floor):
    allowed = set().union(*FLOORS[: floor + 1])
    upwards = {
        f"{module} imports {other}"
        for module, tree in modules().items()
        if package(module) in FLOORS[floor]
        for other in imported(ast.walk(tree))
        if package(other) not in allowed
    }
    assert not upwards


@pytest.mark.parametrize("name", [str, package], ids=["modules", "packages"])
def test_no_circles_of_imports(name):
    graph: dict[str, set[str]] = {name(module): set() for module in modules()}
    for module, tree in modules().items():
        graph[name(module)] |= {name(other) for other in imported(at_import(tree))} - {name(module)}
    while free := {module for module, needs in graph.items() if not needs & graph.keys()}:
        graph = {module: needs for module, needs in graph.items() if module not in free}
    assert not graph


@pytest.mark.parametrize("function", ONE_PLACE)
def test_what_is_done_in_one_place(function):
    users = {
        module
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == function
    }
    assert users == ONE_PLACE[function]
