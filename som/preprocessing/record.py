"""preprocessing.json: which stages have run, from what, and what they found. It is what makes stages resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from som.errors import UserError
from som.files import write_text

FILE = "preprocessing.json"
VERSION = 1
State = Literal["done", "given", "skipped", "failed"]


@dataclass
class StageRecord:
    """One stage that has ended."""

    name: str
    state: State
    method: str
    """What did it, in words."""
    seconds: float
    fingerprint: str
    """Of the stage's settings and of all that it was made from."""
    findings: dict[str, Any] = field(default_factory=dict)
    """Plain JSON."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that a person should read."""


@dataclass
class Record:
    """All stages of one data set folder, in the order in which they ran."""

    source: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, StageRecord] = field(default_factory=dict)

    def is_done(self, name: str, fingerprint: str) -> bool:
        """Whether a stage has ended well with this fingerprint."""
        stage = self.stages.get(name)
        return stage is not None and stage.fingerprint == fingerprint and stage.state != "failed"

    def warnings(self) -> list[str]:
        """Those of all stages, in their order."""
        return [warning for stage in self.stages.values() for warning in stage.warnings]

    def save(self, root: Path) -> None:
        """Writes preprocessing.json in one rename."""
        stages = [dataclasses.asdict(stage) for stage in self.stages.values()]
        text = json.dumps({"version": VERSION, "source": self.source, "stages": stages}, indent=1, allow_nan=False)
        write_text(root / FILE, text + "\n")

    @staticmethod
    def load(root: Path) -> Record:
        """What ``save`` wrote; empty where there is none.

        Raises:
            UserError: the file is not one of ``save``'s.
        """
        path = root / FILE
        if not path.is_file():
            return Record()
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain["version"] != VERSION:
                raise ValueError(f"version {plain['version']}")
            stages = [StageRecord(**stage) for stage in plain["stages"]]
            return Record(dict(plain["source"]), {stage.name: stage for stage in stages})
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{path}: is not a record of this program ({error}); delete it to start anew.") from None


def fingerprint(*parts: Any) -> str:
    """A short digest of settings (dataclasses, plain values, paths) and other fingerprints."""
    return hashlib.sha256(json.dumps([_plain(part) for part in parts], sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Path):
        return describe_path(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def describe_path(path: Path) -> list:
    """A file or folder by its path and by the size and time of change of what is in it."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    found = [(str(p), (s := p.stat()).st_size, s.st_mtime_ns) for p in files if p.exists()]
    return [str(path.resolve()), len(found), hashlib.sha256(repr(found).encode()).hexdigest()[:16]]
