"""Settings: one source for flags, environment and file, and every mistake in one sentence."""

from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.main import cli
from reconciler.errors import SettingsError
from reconciler.settings import environment_name, load_settings, parse_duration, setting_fields

REPO = {"RECONCILER_REPO": "https://git.example.com/models.git"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("1m30s", 90), ("250ms", 0.25), ("2h", 7200), ("1d", 86400), ("7", 7), ("0", 0)],
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1", "5 s", "1x", "inf", "nan", "1s later", "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a duration; write one such as 15s"):
        parse_duration(text)


@given(st.text(max_size=20))
def test_no_text_breaks_the_parser(text: str) -> None:
    with suppress(SettingsError):
        assert parse_duration(text) >= 0


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("node: from-file\nbranch: from-file\ntick: 5s\n")
    environment = {**REPO, "RECONCILER_NODE": "from-env", "RECONCILER_BRANCH": "from-env"}
    settings = load_settings({"config": str(file), "node": "from-flag"}, environment)
    assert (settings.node, settings.branch, settings.tick) == ("from-flag", "from-env", 5.0)
    settings = load_settings({}, {**environment, "RECONCILER_CONFIG": str(file)})
    assert (settings.node, settings.tick) == ("from-env", 5.0)


def test_every_mistake_is_named_with_where_it_stands() -> None:
    environment = {**REPO, "RECONCILER_TICK": "often", "RECONCILER_SERVING_MODE": "magic"}
    with pytest.raises(SettingsError) as raised:
        load_settings({"connections": "none"}, environment)
    message = str(raised.value)
    assert "RECONCILER_TICK: 'often' is not a duration" in message
    assert "RECONCILER_SERVING_MODE: 'magic' is none of rpc, file" in message
    assert "--connections: 'none' is not a whole number above 0" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tik: 5s", "unknown: tik"),
        ("- a\n- b", "must map setting names"),
        ("a: [", r"is not YAML \(line 1, column 5\)"),
        ("[" * 2000, "no setting's value"),
        ("tick: 2026-02-30", "no setting's value"),
    ],
)
def test_a_settings_file_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        load_settings({"config": str(file)}, REPO)


@pytest.mark.parametrize("text", ["git_proxy: http://me:s3cret@proxy: 1", "http://me:s3cret@h: 1"])
def test_a_settings_file_that_is_wrong_is_not_quoted(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings({"config": str(file)}, {})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["serving", "listen"])
@pytest.mark.parametrize("address", ["nowhere", ":80", "host:", "host:99999", "host:http"])
def test_addresses_are_host_and_port(name: str, address: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: .* is not host:port"):
        load_settings({name: address}, REPO)


def test_the_repo_is_needed() -> None:
    with pytest.raises(SettingsError, match="set RECONCILER_REPO to a git URL"):
        load_settings({}, {})


def test_help_shows_every_setting_with_its_environment_twin() -> None:
    help_text = CliRunner().invoke(cli, ["run", "--help"], terminal_width=200).output
    for item in setting_fields():
        assert f"--{item.name.replace('_', '-')} " in help_text
        assert environment_name(item.name) in help_text


def test_the_server_sees_the_models_folder_where_it_is_told(tmp_path: Path) -> None:
    settings = load_settings({"models_dir": str(tmp_path)}, REPO)
    assert settings.serving_base == str(tmp_path)
    assert settings.serving_config_file == tmp_path / "models.config"
    settings = load_settings({"serving_models_dir": "/models/"}, REPO)
    assert settings.serving_base == "/models"
