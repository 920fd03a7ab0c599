"""What a new user meets first: help, typos, errors."""

import subprocess
import sys

import pytest

from streamcore.cli.program import COMMANDS


def test_help_names_every_command(run):
    outcome = run("--help")
    assert outcome.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in outcome.out


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["topics", "create"], ["groups", "reset"]])
def test_every_command_has_help_with_the_common_options(run, command):
    outcome = run(*command, "--help")
    assert outcome.code == 0
    for option in ("--data", "--json", "--debug"):
        assert option in outcome.out


def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(run):
    outcome = run("topcs")
    assert outcome.code == 2
    assert outcome.err.startswith("Error: No such command 'topcs'. Did you mean 'topics'?\n")


def test_a_mistyped_subcommand_is_answered_with_the_one_that_was_meant(run):
    outcome = run("topics", "lst")
    assert outcome.code == 2
    assert "No such command 'lst'. Did you mean 'list'?" in outcome.err
    assert "Try 'streamcore topics --help'" in outcome.err


def test_an_unlike_command_is_answered_with_all_of_them(run):
    outcome = run("xyzzy")
    assert outcome.code == 2
    assert "consume" in outcome.err


def test_a_mistyped_option_is_answered_with_the_one_that_was_meant(run):
    outcome = run("consume", "greetings", "--folow")
    assert outcome.code == 2
    assert outcome.err.startswith("Error: No such option '--folow'. Did you mean '--follow'?\n")


def test_a_mistyped_choice_is_answered_with_the_one_that_was_meant(run):
    outcome = run("produce", "greetings", "x", "--compression", "gzipp")
    assert outcome.code == 2
    assert "Did you mean 'gzip'?" in outcome.err


def test_a_missing_data_directory_is_an_error_and_is_not_created(run, tmp_path):
    outcome = run("topics", "list", "--data", "nowhere")
    assert outcome.code == 1
    assert "There is no data directory nowhere" in outcome.err
    assert not (tmp_path / "nowhere").exists()


def test_common_options_count_before_and_after_the_command(run):
    for args in (["--data", "nowhere", "topics", "list"], ["topics", "--data", "nowhere", "list"]):
        assert "nowhere" in run(*args).err


def test_the_environment_names_the_data_directory(run, monkeypatch):
    monkeypatch.setenv("STREAMCORE_DATA", "elsewhere")
    assert "elsewhere" in run("topics", "list").err


def test_data_and_broker_together_are_refused(run):
    outcome = run("topics", "list", "--data", "a", "--broker", "embedded:b")
    assert outcome.code == 2
    assert "give one of them" in outcome.err


def test_an_unknown_scheme_is_one_sentence(run):
    outcome = run("topics", "list", "--broker", "http://localhost")
    assert outcome.code != 0
    assert "Traceback" not in outcome.err
    assert "http" in outcome.err


def test_an_error_is_json_for_machines(run):
    import orjson

    outcome = run("topics", "list", "--data", "nowhere", "--json")
    error = orjson.loads(outcome.err)["error"]
    assert error["exit_code"] == outcome.code == 1
    assert "nowhere" in error["message"]


def test_debug_shows_the_traceback_and_nothing_else_does(run):
    assert "Traceback" in run("topics", "list", "--data", "nowhere", "--debug").err
    assert "Traceback" not in run("topics", "list", "--data", "nowhere").err


def test_the_version_is_told(run):
    outcome = run("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("streamcore ")


def test_the_installed_command_runs_without_a_terminal():
    script = "from streamcore.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "topcs"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "Did you mean 'topics'?" in done.stderr
