import json
from pathlib import Path

import pytest

from som.errors import UserError
from som.preprocessing.config import DepthSettings, FlowSettings
from som.preprocessing.record import FILE, Record, StageRecord, fingerprint


def test_round_trip(tmp_path):
    stage = StageRecord("flow", "done", "dis", 1.5, "abc", {"size": [3, 4], "share": None}, ["look here"])
    Record({"path": "clip.mp4"}, {"flow": stage}).save(tmp_path)
    back = Record.load(tmp_path)
    assert back.stages == {"flow": stage} and back.source == {"path": "clip.mp4"}
    assert back.warnings() == ["look here"]
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_a_stage_is_done_only_with_its_own_fingerprint_and_without_failure(tmp_path):
    record = Record(stages={"flow": StageRecord("flow", "done", "dis", 1.0, "abc")})
    assert record.is_done("flow", "abc") and not record.is_done("flow", "abd") and not record.is_done("depth", "abc")
    record.stages["flow"].state = "failed"
    assert not record.is_done("flow", "abc")
    assert not Record.load(tmp_path).is_done("flow", "abc")


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"version": 99}), json.dumps({"version": 1, "stages": [{}]})])
def test_a_damaged_record_is_one_sentence(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=rf"{FILE}: is not a record"):
        Record.load(tmp_path)


def test_fingerprints_tell_settings_and_files_apart(tmp_path):
    assert fingerprint(FlowSettings()) == fingerprint(FlowSettings()) != fingerprint(FlowSettings(max_side=100))
    assert fingerprint("a", ["b"]) != fingerprint("a", ["c"])
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"one")
    first = fingerprint(DepthSettings(given=folder))
    assert first == fingerprint(DepthSettings(given=folder))
    (folder / "0.png").write_bytes(b"other")
    assert fingerprint(DepthSettings(given=folder)) != first
    assert fingerprint(Path("nowhere")) == fingerprint(Path("nowhere"))
