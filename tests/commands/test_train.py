from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from som.commands.train import COMMAND
from som.data.config import CustomData, DemoData
from som.errors import UserError
from som.settings.plain import write_settings
from som.training.run_config import TrainingRun, check_same_run, check_training_run, recorded_run

ROOT = Path(__file__).resolve().parents[2]


def parse(*argv: str) -> TrainingRun:
    return COMMAND.parse(["--device", "cpu", *argv])


def test_the_command_line_of_the_contract():
    run = parse(
        "--work-dir",
        "./outputs/pulling_60_ordinal",
        "data:custom",
        "--data.seq-name",
        "pulling",
        "--data.root-dir",
        "/d",
        "--data.is-train",
        "True",
    )
    assert run.work_dir == Path("outputs/pulling_60_ordinal")
    assert run.data == CustomData(seq_name="pulling", root_dir=Path("/d"), is_train=True)
    assert parse("data:custom", "--data.seq-name", "x", "--data.is-train", "False").data.is_train is False


def test_options_may_follow_the_data_set():
    assert parse("data:demo", "--work-dir", "w", "--training.steps", "5").training.steps == 5


def test_preset_lies_under_the_command_line():
    preset = yaml.safe_load((ROOT / "configs" / "cpu.yaml").read_text())
    run = parse("data:demo")
    assert run.config == "cpu"
    assert run.initialization.num_background == preset["initialization"]["num_background"]
    run = parse("--initialization.num-background", "7", "data:demo")
    assert run.initialization.num_background == 7
    assert run.initialization.num_foreground == preset["initialization"]["num_foreground"]


def test_own_preset_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("training: {steps: 12, density: {reset_at: [0.5]}}\nseed: 3")
    run = parse("--config", str(tmp_path / "mine.yaml"), "data:demo")
    assert (run.training.steps, run.seed, run.training.density.reset_at) == (12, 3, (0.5,))


@pytest.mark.parametrize("preset", sorted(p.stem for p in (ROOT / "configs").glob("*.yaml")))
def test_shipped_presets_are_valid(preset):
    check_training_run(parse("--config", preset, "data:demo"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("training: {stepz: 3}", "no setting 'stepz'"),
        ("training: {steps: many}", "steps: 'many' does not fit"),
        ("training: 3", "does not fit"),
        ("seed: [", "not valid YAML"),
        ("- 1", "expected a mapping"),
        ("overwrite: 1", "does not fit"),
    ],
)
def test_wrong_presets_are_named(tmp_path, content, message):
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        parse("--config", str(tmp_path / "p.yaml"), "data:demo")
    assert "p.yaml" in str(error.value)


def test_unknown_preset_lists_the_known():
    with pytest.raises(UserError, match="cpu, ordinal, quality"):
        parse("--config", "nonsense", "data:demo")


def test_config_yaml_round_trips(tmp_path):
    run = parse("--work-dir", str(tmp_path), "data:custom", "--data.seq-name", "s", "--data.root-dir", "r")
    write_settings(tmp_path / "config.yaml", run)
    assert recorded_run(tmp_path) == run


def test_only_the_same_run_is_resumed(tmp_path):
    run = parse("data:demo")
    check_same_run(run, replace(run, work_dir=tmp_path, threads=3), tmp_path)
    other = replace(run, seed=9, data=DemoData(num_times=5))
    with pytest.raises(UserError, match=r"data.num_times: 24 -> 5; seed: 0 -> 9"):
        check_same_run(run, other, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        ("--training.steps", "0"),
        ("--training.batch-size", "-1"),
        ("--training.density.start", "1.5"),
        ("--training.losses.rgb", "-1"),
        ("--training.learning-rates.means", "nan"),
        ("--training.density.reset-at", "0.5", "7"),
    ],
)
def test_impossible_values_are_refused_by_name(options):
    with pytest.raises(UserError) as error:
        check_training_run(parse(*options, "data:demo"))
    assert COMMAND.render(str(error.value)).startswith(options[0])


def test_missing_work_dir(tmp_path):
    with pytest.raises(UserError, match=r"config\.yaml: no such file"):
        recorded_run(tmp_path)


def test_the_ordinal_preset_is_the_default():
    run = parse("data:demo")
    assert parse("--config", "auto,ordinal", "data:demo").training.losses == run.training.losses
    assert parse("--config", "auto,ablation/no_depth,ordinal", "data:demo").training.losses == run.training.losses


def test_settings_of_earlier_versions_are_understood_in_files(tmp_path):
    run = parse("--work-dir", str(tmp_path), "data:custom", "--data.seq-name", "s", "--data.every", "3")
    write_settings(tmp_path / "config.yaml", run)
    text = (tmp_path / "config.yaml").read_text()
    head, tail = text.split("work_dir:", 1)
    (tmp_path / "config.yaml").write_text(head.replace("every:", "stride:", 1) + "work_dir:" + tail)
    assert "stride: 3" in (tmp_path / "config.yaml").read_text()
    assert recorded_run(tmp_path) == run


def test_help_names_what_people_use(capsys):
    with pytest.raises(SystemExit) as stop:
        COMMAND.parse(["--help"], "som4d train")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    for word in "--work-dir --data.seq-name --data.root-dir --data.hold-out-every --config --training.steps".split():
        assert word in shown
    assert "data:demo" in shown and "som4d train --help-all" in shown and len(shown.splitlines()) < 40
    with pytest.raises(SystemExit):
        COMMAND.parse(["data:custom", "--help"], "som4d train")
    assert "--data.mask-erosion" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        COMMAND.parse(["--help-all"], "som4d train")
    assert "--training.losses.rgb" in capsys.readouterr().out
