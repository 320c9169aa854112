"""Switches, help and messages of a command, on a small one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from som.errors import UserError
from som.settings.command_line import Command
from som.settings.messages import render_message
from som.settings.numbers import Number
from som.settings.options import first_sentence, options_of


@dataclass(frozen=True)
class Inner:
    """Of a part."""

    is_train: bool = True
    """Which split."""
    max_side: int | None = None
    """Longer side. By default none."""
    unit: Number | None = None
    """Metres per step."""


@dataclass(frozen=True)
class Outer:
    """Of a command."""

    source: tyro.conf.Positional[Path]
    """Where from."""
    flat: Annotated[Inner, tyro.conf.arg(name="")] = Inner()
    """Its options have no prefix."""
    data: Inner = field(default_factory=Inner)
    """A part."""
    kind: Literal["a", "b"] = "a"
    """Which."""
    overwrite: bool = False
    """Start anew."""


COMMAND = Command(Outer, "Does something.", ("source", "data.max_side", "kind", "overwrite"), lambda run: 0)


@pytest.mark.parametrize(
    ("words", "overwrite", "is_train"),
    [
        (["x"], False, True),
        (["--overwrite", "x"], True, True),
        (["x", "--overwrite"], True, True),
        (["x", "--overwrite", "True"], True, True),
        (["x", "--overwrite", "false"], False, True),
        (["x", "--overwrite=True"], True, True),
        (["x", "--no-overwrite"], False, True),
        (["x", "--data.is-train", "False", "--overwrite"], True, False),
        (["x", "--data.is_train", "True"], False, True),
        (["x", "--data.no-is-train"], False, False),
    ],
)
def test_switches_work_bare_and_with_a_value(words, overwrite, is_train):
    run = COMMAND.parse(words)
    assert (run.overwrite, run.data.is_train, run.source) == (overwrite, is_train, Path("x"))


@pytest.mark.parametrize(("word", "value"), [("1/256", 1 / 256), ("0.001", 0.001), ("1e-3", 1e-3), ("-1", -1.0)])
def test_fractions_are_numbers(word, value):
    assert COMMAND.parse(["x", "--data.unit", word]).data.unit == value


@pytest.mark.parametrize("word", ["abc", "1/0", "1/x"])
def test_words_are_no_numbers(word, capsys):
    with pytest.raises(SystemExit) as stop:
        COMMAND.parse(["x", "--data.unit", word])
    assert stop.value.code == 2 and word in capsys.readouterr().err


def test_options_have_names_defaults_and_descriptions():
    options = options_of(Outer)
    assert {path: option.name for path, option in options.items()} == {
        "source": "SOURCE",
        "flat.is_train": "--is-train",
        "flat.max_side": "--max-side",
        "flat.unit": "--unit",
        "data.is_train": "--data.is-train",
        "data.max_side": "--data.max-side",
        "data.unit": "--data.unit",
        "kind": "--kind",
        "overwrite": "--overwrite",
    }
    assert options["kind"].values == "{a,b}" and options["kind"].default == "a"
    assert options["data.max_side"].description == "Longer side. By default none."


def test_help_shows_the_common_options(capsys):
    with pytest.raises(SystemExit):
        COMMAND.parse(["--help"], "som4d x")
    shown = capsys.readouterr().out
    assert "--data.max-side INT" in shown and "Longer side." in shown and "By default none" not in shown
    assert "--kind {a,b}" in shown and "[a]" in shown and "--unit" not in shown
    assert "All 9 options: som4d x --help-all" in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`data.max_side`: must be 1.", "--data.max-side: must be 1."),
        ("`max_side` 3", "--max-side 3"),
        ("use `side`", "use `side`"),
        ("use `som4d train`", "use `som4d train`"),
        ("`network.bins` or `bins`", "--training.network.bins or --training.network.bins"),
        ("`is_train`", "`is_train`"),
        ("`width`", "--training.width"),
    ],
)
def test_settings_in_messages_become_options(text, shown):
    options = {
        "data.max_side": "--data.max-side",
        "max_side": "--max-side",
        "training.network.bins": "--training.network.bins",
        "training.network.width": "--training.network.width",
        "training.width": "--training.width",
        "a.is_train": "--a.is-train",
        "b.is_train": "--b.is-train",
    }
    assert render_message(text, options) == shown


def test_errors_are_one_sentence_and_2(capsys):
    def fail(run):
        raise UserError("`data.unit`: no.")

    assert Command(Outer, "", (), fail).run(["x"]) == 2
    assert capsys.readouterr().err == "error: --data.unit: no.\n"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two.", "One."),
        ("Every 2nd, 3rd, ... frame is kept. Two.", "Every 2nd, 3rd, ... frame is kept."),
        ("A list (.txt). Two.", "A list (.txt)."),
        ("``a``: no end", "a: no end"),
    ],
)
def test_first_sentences(text, first):
    assert first_sentence(text) == first
