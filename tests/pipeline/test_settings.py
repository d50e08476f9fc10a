"""Options from mgc.toml and from environment variables: their order, their checks, and `mgc config`."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from commands import mgc
from stores import make_store

from mgc import cli
from mgc.pipeline import settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> None:
    Path("mgc.toml").write_text(text, encoding="utf-8")


def value(command: str, key: str) -> tuple[object, str]:
    """Value and origin of an option, by `mgc config`."""
    outcome = mgc("config", command, "--json")
    assert outcome.code == 0, outcome.err
    row = outcome.json[command][key]
    return row["value"], row["origin"]


def every_option() -> list[tuple[str, click.Option]]:
    return [
        (name, option) for name, command in cli.main.commands.items() for option in settings.options_of(command)
    ]  # fmt: skip


def test_the_command_line_comes_before_the_environment_the_file_and_the_default(monkeypatch: pytest.MonkeyPatch):
    store = make_store(Path("here") / "features" / "songs" / "mel").path.resolve()
    monkeypatch.delenv("MGC_DATA")
    assert "no feature store in data; " in mgc("info").error
    write('[all]\ndata-dir = "nowhere"\n')
    assert "no feature store in nowhere; " in mgc("info").error
    write('[all]\ndata-dir = "nowhere"\n[info]\ndata-dir = "here"\njson = true\n')
    assert mgc("info").json["store"] == str(store.relative_to(Path.cwd()))
    monkeypatch.setenv("MGC_DATA", "of-all")
    assert "no feature store in of-all; " in mgc("info").error
    monkeypatch.setenv("MGC_INFO_DATA_DIR", "of-info")
    assert "no feature store in of-info; " in mgc("info").error
    assert "no feature store in typed; " in mgc("info", "--data-dir", "typed").error
    assert "no feature store in of-all; " in mgc("verify").error


def test_config_names_the_origin_of_each_value(monkeypatch: pytest.MonkeyPatch):
    write(
        '# of mine\n[all]\nquiet = true\n\n[train]\nmodel = "kth2020/cnn"\nstore = [\n  "a",\n  "b",\n]\nlr = 1e-3\n'
        "compile = false\nvariants = false\n[extract]\nfeature = 'mel'\n"
    )
    monkeypatch.setenv("MGC_TRAIN_EPOCHS", "7")
    monkeypatch.setenv("MGC_AUDIT_RUNS", os.pathsep.join("xy"))
    monkeypatch.setenv("MGC_EVALUATE_STORE", "x:s3://bucket/y")
    monkeypatch.setenv("MGC_TRAIN_CHANNELS_LAST", "yes")
    monkeypatch.setenv("MGC_EXTRACT_MIN_TRACKS", "")  # empty is unset
    assert value("train", "model") == ("kth2020/cnn", "mgc.toml, line 6")
    assert value("train", "store") == (["a", "b"], "mgc.toml, line 7")
    assert value("train", "lr") == (0.001, "mgc.toml, line 11")
    assert value("train", "compile") == (False, "mgc.toml, line 12")
    assert value("train", "variants") == (False, "mgc.toml, line 13")
    assert value("train", "quiet") == (True, "mgc.toml, line 3")
    assert value("audit", "runs") == (["x", "y"], "$MGC_AUDIT_RUNS")
    assert value("evaluate", "store") == (["x", "s3://bucket/y"], "$MGC_EVALUATE_STORE")
    assert value("train", "epochs") == (7, "$MGC_TRAIN_EPOCHS")
    assert value("train", "channels-last") == (True, "$MGC_TRAIN_CHANNELS_LAST")
    assert value("train", "data-dir") == (os.environ["MGC_DATA"], "$MGC_DATA")
    assert value("train", "seed") == (None, "default")
    assert value("extract", "feature") == (["mel"], "mgc.toml, line 15")
    assert value("extract", "min-tracks") == (None, "default")
    text = mgc("config", "train").out
    assert "  epochs " in text
    assert " 7 " in text
    assert text.count("mgc.toml, line ") == 6
    everything = mgc("config").out
    assert "mgc extract\n  feature " in everything
    assert " default" not in everything


def test_config_without_settings_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MGC_DATA")
    assert mgc("config").out.startswith("neither mgc.toml nor an environment variable sets an option; ")
    assert mgc("config", "trian").error == "there is no command trian; did you mean train? `mgc --help` lists them"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[info]\njsn = true", "mgc.toml, line 2: [info] jsn = true: no option of `mgc info`; did you mean json?"),
        ("[info]\n\ndata_dir = 'x'", "mgc.toml, line 3: [info] data_dir = \"x\": no option of `mgc info`; did you"),
        ("[inof]\njson = true", "mgc.toml, line 1: [inof]: no such command; did you mean info? tables are named after"),
        ("json = true", "mgc.toml, line 1: json stands in no table; put it below [all] or a [COMMAND]"),
        ("[all]\ndata-dri = 'x'", "mgc.toml, line 2: [all] data-dri = \"x\": no option of every command; did"),
        ("[all]\njson = true", "mgc.toml, line 2: [all] json = true: no option of every command; it holds data-dir, "),
        ("[info]\njson = 'yes'", "mgc.toml, line 2: [info] json = \"yes\": a flag has no such value; write tr"),
        ("[info]\ndata-dir = ['x']", "mgc.toml, line 2: [info] data-dir = [\"x\"]: no value of this option"),
        ("[info]\ndata-dir = 1979-05-27", "mgc.toml, line 2: [info] data-dir = \"1979-05-27\": no value of this opt"),
        ("[info.json]\nx = 1", "mgc.toml, line 1: [info] json = {\"x\": 1}: a flag has no such value; write true or"),
        ("[info]\njson = ", "mgc.toml: no valid TOML: Invalid value (at "),
        ("[info]\njson = true\njson = false", "mgc.toml: no valid TOML: Cannot overwrite a value (at "),
        ("x = " + "[" * 5000, "mgc.toml: no valid TOML: "),
        ("#" * 70_000, "mgc.toml is larger than 64 KiB; keep the options in it, and nothing else"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_one_line_with_its_place(text: str, error: str):
    write(text)
    outcome = mgc("info")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert outcome.error.startswith(error)
    assert mgc("info", "--help").code == 0  # the way out of it


def test_a_file_that_is_none_is_refused(folder: Path):
    for make in (
        Path("mgc.toml").mkdir,
        lambda: os.mkfifo("mgc.toml"),
        lambda: Path("mgc.toml").symlink_to("mgc.toml"),
    ):
        make()
        outcome = mgc("info")
        assert outcome.code == 2
        assert outcome.error.startswith(("mgc.toml is no file; ", "mgc.toml: "))
        Path("mgc.toml").rmdir() if Path("mgc.toml").is_dir() else Path("mgc.toml").unlink()
    Path("mgc.toml").write_bytes(b"[all]\n# \xff")
    assert mgc("info").error == "mgc.toml: byte 8 is not UTF-8; save it as UTF-8"


def test_numbers_are_checked_like_those_of_the_command_line(monkeypatch: pytest.MonkeyPatch):
    """Those of every command: the type is that of the option, and the message says where the value stands."""
    count = 0
    for name, option in every_option():
        if option.type.name not in ("integer", "integer range", "float", "float range"):
            continue
        if isinstance(option.type, click.types.FloatParamType | click.types.IntParamType) and not isinstance(
            option.type, click.IntRange
        ):
            continue  # the command checks its range, see below
        key, count = settings.key(option), count + 1
        for wrong in ("-1", '"many"', "true"):
            write(f"[{name}]\n{key} = {wrong}\n")
            outcome = mgc("config", name)
            assert outcome.code == 2, (name, key, wrong)
            assert outcome.error.startswith(f"mgc.toml, line 2: [{name}] {key} = {wrong}: "), outcome.err
        Path("mgc.toml").unlink()
        variable = settings.variables(name, option)[0]
        monkeypatch.setenv(variable, "many")
        assert mgc("config", name).error.startswith(f'${variable} = "many": ')
        monkeypatch.delenv(variable)
    assert count > 40


def test_a_whole_number_is_not_cut_to_one():
    write("[train]\nepochs = 1.5\n")
    assert "1.5" in mgc("config", "train").error
    write("[train]\nfolds = 1\n")  # an option of text with a check of its own
    assert mgc("train").error.startswith("mgc.toml, line 2: [train] folds = 1: --folds 1")


def test_an_error_that_a_command_finds_names_the_origin(monkeypatch: pytest.MonkeyPatch):
    write("[train]\nplateau-factor = -1\n")
    assert " (--plateau-factor is set by mgc.toml, line 2); it must be " in mgc("train").error
    write("[train]\nrun = 'x'\n")
    assert mgc("train").error.startswith("--run names a run to continue (--run is set by mgc.toml, line 2); add --res")
    Path("mgc.toml").unlink()
    monkeypatch.setenv("MGC_TRAIN_RUN", "x")
    assert " (--run is set by $MGC_TRAIN_RUN); add --resume" in mgc("train").error
    assert "set by" not in mgc("train", "--run", "y").error


def test_a_mistyped_variable_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MGC_TRAIN_EPOCH", "3")
    problem = "$MGC_TRAIN_EPOCH: `mgc train` has no such option; did you mean MGC_TRAIN_EPOCHS or "
    assert mgc("train").error.startswith(problem)
    assert mgc("models", "kth2020").code == 0


def test_the_file_runs_nothing_and_removes_nothing(folder: Path):
    """What removes or changes files, or gives work to other machines, must be typed."""
    for name, option in every_option():
        key = settings.key(option)
        if key in settings.WITHHELD:
            write(f"[{name}]\n{key} = {'true' if option.is_flag else 'x'!r}\n".replace("'true'", "true"))
            assert "the file cannot set this option, as " in mgc("config", name).error
    assert set(settings.WITHHELD) <= {settings.key(option) for _, option in every_option()}
    write('[all]\ndata-dir = "$(touch run)`touch run`; touch run"\n[extract]\nname = "{__import__(\'os\')}"\n')
    assert mgc("config", "extract").code == 0
    assert [path.name for path in folder.iterdir()] == ["mgc.toml"]


def test_every_command_has_the_common_options():
    for name, command in cli.main.commands.items():
        assert set(settings.COMMON_KEYS) <= {settings.key(option) for option in settings.options_of(command)}, name


def test_no_two_options_have_one_variable():
    names = [variable for name, option in every_option() for variable in settings.variables(name, option)[:1]]
    assert len(set(names)) == len(names)
