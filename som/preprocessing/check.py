"""Checks a data set folder of any supported layout: every problem, or what it holds and what looks doubtful."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from som.data.checks import DatasetError
from som.data.config import CustomData
from som.data.load import find_place, load_dataset
from som.errors import UserError
from som.preprocessing.facts import collect_facts, describe_facts, flow_facts, open_flow
from som.preprocessing.links import link_background
from som.preprocessing.plausibility import find_doubts


@dataclass
class CheckResult:
    """What a data set folder holds, and what is wrong with it."""

    path: Path
    layout: str = "unknown"
    """A title of ``som.data.layouts``; unknown where no reader fits."""
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
    config = CustomData(seq_name=seq_name, root_dir=path, max_side=max_side)
    layout = "unknown"
    try:
        layout = find_place(config)[1].title
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
