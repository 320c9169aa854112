"""Checks a data set folder of any supported layout: every problem, or what it holds and what looks doubtful."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from som.data.checks import DatasetError
from som.data.colmap import is_colmap
from som.data.config import CustomData, DavisData, IphoneData, SequenceData
from som.data.endonerf import is_endonerf
from som.data.iphone import is_iphone
from som.data.load import MARKERS, load_dataset
from som.errors import UserError
from som.preprocessing.facts import collect_facts, describe_facts, flow_facts, open_flow
from som.preprocessing.links import link_background
from som.preprocessing.plausibility import find_doubts


@dataclass
class CheckResult:
    """What a data set folder holds, and what is wrong with it."""

    path: Path
    layout: str = "unknown"
    """native, EndoNeRF, COLMAP, Shape-of-Motion, DAVIS or iPhone; unknown where no reader fits."""
    problems: list[str] = field(default_factory=list)
    """What keeps the data set from being used, each with its file and its remedy."""
    warnings: list[str] = field(default_factory=list)
    """What is usable but will probably give a bad scene, each with what to do."""
    facts: dict = field(default_factory=dict)
    """Plain numbers and texts (see ``collect_facts``); empty where there are problems."""

    @property
    def ok(self) -> bool:
        """Whether the data set can be used."""
        return not self.problems


def check_folder(path: Path, seq_name: str = "", max_side: int | None = None) -> CheckResult:
    """Reads a whole data set and reports on it; what is wrong with its content is reported, not raised.

    Args:
        path: folder of the data set.
        seq_name: the sequence, where a folder of the Shape-of-Motion or DAVIS layout holds several.
        max_side: images are reduced to this longer side after reading, which needs less memory; None looks at all
            pixels. The facts are about the reduced images (see ``facts_at_size``).
    """
    path = Path(path)
    try:
        layout, config = recognise(path, seq_name)
        config = replace(config, max_side=max_side)
    except UserError as error:
        return CheckResult(path, problems=_sentences(error))
    try:
        dataset = load_dataset(config)
    except UserError as error:
        return CheckResult(path, layout, problems=_sentences(error))
    flow, doubts = open_flow(path / "flow", dataset)
    facts = {"layout": layout, **collect_facts(dataset)}
    if flow is not None:
        facts["flow"] = flow_facts(flow)
    if (links := link_background(dataset, flow)) is not None:
        facts["agreement"] = links.facts()
    return CheckResult(path, layout, [], find_doubts(dataset, links) + doubts, facts)


def recognise(path: Path, seq_name: str = "") -> tuple[str, SequenceData]:
    """The layout of a folder by its marker files, and the options that load it.

    Raises:
        UserError: there is no such folder, or its layout is not recognised.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give the folder of a data set.")
    custom = CustomData(seq_name=seq_name, root_dir=path)
    if (path / "transforms.json").is_file():
        return "native", custom
    if is_endonerf(path):
        return "EndoNeRF", custom
    if is_iphone(path):
        return "iPhone", IphoneData(seq_name=seq_name, root_dir=path)
    if (path / "JPEGImages").is_dir():
        resolution = next((p for p in ("480p", "1080p", "Full-Resolution") if (path / "JPEGImages" / p).is_dir()), "")
        name = seq_name or _only_sequence(path / "JPEGImages" / resolution, path)
        return "DAVIS", DavisData(seq_name=name, root_dir=path, resolution=resolution)
    if is_colmap(path):
        return "COLMAP", custom
    if (path / "images").is_dir() and any(p.is_dir() for p in (path / "images").iterdir()):
        name = seq_name or _only_sequence(path / "images", path)
        return "Shape-of-Motion", CustomData(seq_name=name, root_dir=path)
    if (path / "preprocessing.json").is_file():
        raise UserError(
            f"{path}: its preprocessing has not ended (there is no transforms.json); run run_preprocess.py with the "
            "same arguments again, it goes on where it stopped."
        )
    if (path / "images").is_dir():
        raise UserError(
            f"{path}: has images but no cameras; run_preprocess.py {path / 'images'} --output <another folder> "
            "makes a data set of them."
        )
    raise UserError(
        f"{path}: the layout is not recognised, expected {MARKERS}, JPEGImages/ (DAVIS) or splits/train.json (iPhone); "
        "see docs/data-formats.md."
    )


def render_check(result: CheckResult) -> str:
    """The result as text for a terminal, without a final line break."""
    if not result.ok:
        noun = "problem" if len(result.problems) == 1 else "problems"
        return "\n".join(
            [f"{result.path} ({result.layout} layout): {len(result.problems)} {noun}", *_items(result.problems)]
        )
    lines = [f"{result.path} ({result.layout} layout): can be used", ""]
    rows = describe_facts(result.facts)
    width = max(len(label) for label, _ in rows)
    lines += [f"  {label:<{width}}  {text}" for label, text in rows]
    if result.warnings:
        noun = "thing looks" if len(result.warnings) == 1 else "things look"
        lines += ["", f"{len(result.warnings)} {noun} doubtful:", *_items(result.warnings)]
    return "\n".join(lines)


def _items(sentences: list[str]) -> list[str]:
    return [f"  - {sentence}" for sentence in sentences]


def _sentences(error: UserError) -> list[str]:
    return error.problems if isinstance(error, DatasetError) else [str(error)]


def _only_sequence(folder: Path, root: Path) -> str:
    """Raises:
    UserError: there is not exactly one.
    """
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    if len(names) == 1:
        return names[0]
    found = f"holds several sequences ({', '.join(names[:8])})" if names else f"holds no sequence in {folder.name}/"
    raise UserError(f"{root}: {found}; name the one to check with --seq-name.")
