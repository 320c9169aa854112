"""Writes report.html and report.png of a data set folder, finished or not."""

from __future__ import annotations

import json
from pathlib import Path

from som.errors import UserError
from som.files import write_image, write_text
from som.preprocessing.check import check_folder
from som.preprocessing.facts import describe_facts, facts_at_size
from som.preprocessing.report.contents import Report, Stage
from som.preprocessing.report.folder import Folder
from som.preprocessing.report.page import render_page
from som.preprocessing.report.pictures import (
    camera_section,
    depth_section,
    flow_section,
    frame_section,
    mask_section,
    track_section,
)
from som.preprocessing.report.sheet import render_sheet

SECTIONS = (frame_section, mask_section, camera_section, track_section, depth_section, flow_section)
WARNING_ORDER = ("cameras", "check", "motion", "masks", "frames", "tracks", "depth", "flow")
"""Whose warnings come first: what spoils everything that follows, then what spoils less."""
CHECK_SIDE_PX = 640
"""Longer side at which the data set is checked for the report."""


def write_report(root: Path) -> Path:
    """Writes ``report.html`` (one page that needs no other file) and ``report.png`` (the same as one picture).

    Shows what lies in the folder: preprocessing.json, images/, foreground/, flow/, transforms.json, cameras.npz,
    tracks.npz, depth/ and depth_confidence/. Whatever is not there yet is left out, whatever cannot be read is said.

    Returns:
        The path of the page.

    Raises:
        UserError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of a data set.")
    report = make_report(root)
    write_image(root / "report.png", render_sheet(report))
    write_text(root / "report.html", render_page(report))
    return root / "report.html"


def make_report(root: Path) -> Report:
    """What the report of a folder says and shows."""
    folder = Folder(root)
    stages, source = _read_stages(folder)
    name = root.resolve().name if folder.header is None else folder.header.name
    report = Report(title=f"{name}: what preprocessing found", stages=stages)
    report.sections = [section for make in SECTIONS if (section := make(folder)) is not None]
    if source:
        report.facts.append(("source", source))
    warnings = [(stage.name, text) for stage in stages for text in stage.warnings]
    if folder.header is not None:
        result = check_folder(root, max_side=CHECK_SIDE_PX)
        report.problems = result.problems
        warnings += [("check", text) for text in result.warnings]
        if result.ok:
            first = folder.image(folder.shots[0])
            facts = result.facts if first is None else facts_at_size(result.facts, (first.shape[0], first.shape[1]))
            report.facts += describe_facts(facts)
    elif not stages:
        report.problems = [f"{root}: has no transforms.json; preprocess the video first (som4d preprocess)."]
    read = [text for text in dict.fromkeys(folder.problems.found) if text not in report.problems]
    warnings += [("files", text) for text in read]
    report.warnings = sorted(dict.fromkeys(warnings), key=lambda w: _weight(w[0], stages))
    return report


def _read_stages(folder: Folder) -> tuple[list[Stage], str]:
    """The stages in preprocessing.json and where the video came from."""
    record = folder.json("preprocessing.json")
    entries = record.get("stages")
    stages = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name", "report") != "report":
            stages.append(
                Stage(
                    name=str(entry["name"]),
                    state=str(entry.get("state", "done")),
                    method=str(entry.get("method", "")),
                    seconds=float(entry.get("seconds", 0.0)),
                    findings=dict(entry.get("findings") or {}),
                    warnings=[str(text) for text in entry.get("warnings") or []],
                )
            )
    source = record.get("source") or {}
    text = source if isinstance(source, str) else ", ".join(v for v in source.values() if isinstance(v, str) and v)
    return stages, text or _provenance(folder)


def _provenance(folder: Folder) -> str:
    source = {} if folder.header is None else folder.header.content.get("source") or {}
    if isinstance(source, str):
        return source
    return "; ".join(
        f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in source.items()
    )


def _weight(name: str, stages: list[Stage]) -> tuple[int, int]:
    failed = any(stage.name == name and stage.state == "failed" for stage in stages)
    return (0 if failed else 1, WARNING_ORDER.index(name) if name in WARNING_ORDER else len(WARNING_ORDER))
