"""The front door: every command is there, says what it does, and ends in words."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import haechi.cli
from haechi.cache.errors import HaechiError

COMMANDS = {name: haechi.cli.main.get_command(click.Context(haechi.cli.main), name) for name in haechi.cli.COMMANDS}


@pytest.mark.parametrize("name", haechi.cli.COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    command = COMMANDS[name]
    assert command is not None
    assert command.name == name
    assert command.help is not None
    assert command.help.splitlines()[0] == haechi.cli.COMMANDS[name][1]


@pytest.mark.parametrize("name", haechi.cli.COMMANDS)
def test_every_flag_is_explained(name: str) -> None:
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option)]  # type: ignore[union-attr]
    assert options
    for option in options:
        assert option.help, f"{name} {option.opts}"


def test_version_and_unknown_commands() -> None:
    runner = CliRunner()
    assert haechi.__version__ in runner.invoke(haechi.cli.main, ["--version"]).output
    wrong = runner.invoke(haechi.cli.main, ["extrakt"])
    assert wrong.exit_code == 2
    assert "No such command" in wrong.output


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HaechiError("the cache is odd; do this"), "Error: the cache is odd; do this"),
        (OSError(28, "x", "out/shard.h5"), "Error: out/shard.h5: No space left on device"),
        (PermissionError(13, "x", "out"), "Error: out: Permission denied"),
    ],
)
def test_users_errors_become_words(
    error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(COMMANDS["verify"], "callback", fail)
    result = CliRunner().invoke(haechi.cli.main, ["verify", str(tmp_path)])
    assert result.exit_code == 1
    assert expected in result.output
    assert isinstance(result.exception, SystemExit)


def test_our_own_defects_are_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(COMMANDS["verify"], "callback", fail)
    assert isinstance(CliRunner().invoke(haechi.cli.main, ["verify", str(tmp_path)]).exception, ZeroDivisionError)
