"""The command line: every command is listed and explained, and errors are printed in words."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import haechi.cli
from haechi.cache.errors import HaechiError

ROOT = Path(__file__).parent.parent
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
        (BrokenPipeError(32, "x"), "Error: Broken pipe"),  # of another pipe: standard output is open
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


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["inspect", "tests/archive/cache", "--json"]])
def test_a_closed_pipe_ends_a_command_silently(arguments: list[str]) -> None:
    """As in `haechi inspect CACHE | head` after `head` has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "haechi", *arguments], stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_importing_haechi_loads_no_heavy_package() -> None:
    """Its public names are listed nevertheless."""
    code = "import sys, haechi; print(sorted({'click', 'h5py', 'numpy', 'torch'} & set(sys.modules)), dir(haechi))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded, _, names = done.stdout.partition("] ")
    assert loaded == "["
    for name in haechi.PUBLIC:
        assert f"'{name}'" in names


def test_every_public_name_is_listed_and_nothing_else() -> None:
    assert set(haechi.__all__) == {
        "Cache",
        "Classifier",
        "evaluate_head",
        "extract_features",
        "train_head",
        "__version__",
    }
    assert set(haechi.PUBLIC) == set(haechi.__all__) - {"__version__"}
    assert {name for name in dir(haechi) if not name.startswith("_")} == set(haechi.PUBLIC)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        haechi.nothing  # noqa: B018
