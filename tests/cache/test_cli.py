"""`haechi inspect` and `haechi verify`: output and exit status, and that no traceback is shown."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from haechi.cache.writer import shard_path, write_shard
from haechi.cli import main
from tests import synthetic
from tests.cache.forge import change, forge


def _run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return synthetic.write_cache(tmp_path / "c", num_failures=2)


def test_inspect_prints_a_screen(cache: Path) -> None:
    result = _run("inspect", cache)
    assert result.exit_code == 0
    assert "20 videos, 2 failed, UNTRAINED" in result.stdout


def test_inspect_prints_json_and_nothing_else(cache: Path) -> None:
    result = _run("inspect", cache, "--json")
    summary = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert summary["labels"] == {"harmful": 12, "safe": 8, "unlabelled": 0}
    assert summary["untrained"] == ["clip", "slowfast"]


def test_inspect_deep_reads_every_row(cache: Path) -> None:
    plain, deep = (json.loads(_run("inspect", cache, "--json", *flags).stdout) for flags in ([], ["--deep"]))
    assert plain == deep
    data = bytearray(shard_path(cache, 0).read_bytes())
    with h5py.File(shard_path(cache, 0)) as file:
        data[file["clip/features"].id.get_offset()] ^= 1
    shard_path(cache, 0).write_bytes(data)
    assert _run("inspect", cache).exit_code == 0
    result = _run("inspect", cache, "--deep")
    assert (result.exit_code, "/clip/features is damaged" in result.stderr) == (1, True)


@pytest.mark.parametrize("id", ["video-0003.mp4", "broken-0001.mp4"])
def test_inspect_shows_one_video(cache: Path, id: str) -> None:
    screen, printed = _run("inspect", cache, "--video", id), _run("inspect", cache, "--video", id, "--json")
    assert (screen.exit_code, printed.exit_code) == (0, 0)
    assert id in screen.stdout
    assert json.loads(printed.stdout)["id"] == id


def test_verify_of_a_sound_cache(cache: Path) -> None:
    result = _run("verify", cache)
    assert result.exit_code == 0
    for text in ("3 shards", "20 videos, 2 failures", "every byte is as it was written"):
        assert text in result.stdout
    printed = _run("verify", cache, "--json")
    report = json.loads(printed.stdout)
    assert (printed.exit_code, report["ok"], report["problems"], report["videos"]) == (0, True, [], 20)


def test_verify_lists_all_problems_and_fails(cache: Path) -> None:
    forge(shard_path(cache, 0), lambda file: change(file, "media/group", 1, b"\x1b[2J\xff"))
    forge(shard_path(cache, 0), lambda file: change(file, "media/split", 2, b"\x1b[2J[red]"))
    shard_path(cache, 2).write_bytes(b"")
    result = _run("verify", cache)
    assert result.exit_code == 1
    for text in (
        "shard-00000.h5",
        "/media/group",
        "shard-00002.h5",
        "3 problems, in 2 of 3 shards",
        r"'\x1b[2J[red]'",
    ):
        assert text in result.stdout
    assert "\x1b" not in result.stdout
    printed = _run("verify", cache, "--json")
    assert printed.exit_code == 1
    problems = json.loads(printed.stdout)["problems"]
    assert [problem["shard"] for problem in problems] == ["shard-00000.h5", "shard-00000.h5", "shard-00002.h5"]
    assert problems[0].keys() == {"shard", "dataset", "video", "what"}


def test_verify_lists_videos_with_one_problem_together(cache: Path) -> None:
    data = bytearray(shard_path(cache, 0).read_bytes())
    sha256 = data.index(synthetic.media("video-0004.mp4").sha256.encode())
    data[sha256] ^= 1
    shard_path(cache, 0).write_bytes(data)
    result = _run("verify", cache)
    assert "/media/sha256 video-0004.mp4 and 7 more: damaged" in result.stdout
    assert "9 problems" in result.stdout


def test_verify_notes_leftovers(cache: Path) -> None:
    (cache / ".partial-shard-00007.h5").write_bytes(b"")
    result = _run("verify", cache)
    assert (result.exit_code, ".partial-shard-00007.h5" in result.stdout) == (0, True)


def test_repair_says_what_it_drops(cache: Path) -> None:
    forge(shard_path(cache, 0), lambda file: change(file, "media/split", 2, b"\x1b[2J[red]"))
    forge(shard_path(cache, 0), lambda file: change(file, "media/id", 3, b"\x1b[2J[red]"))
    forge(shard_path(cache, 1), lambda file: file.__delitem__("media/fps"))
    shard_path(cache, 2).write_bytes(b"")
    result = _run("verify", cache, "--repair")
    assert result.exit_code == 0
    for text in (
        "'\\x1b[2J[red]' is not one of",
        "shard-00000.h5: rewritten, 8 rows kept; dropped 2 videos: ",
        ", \\x1b[2J[red]",
        "shard-00001.h5: cannot be read, renamed to shard-00001.h5.damaged; dropped 8 videos: video-",
        "shard-00002.h5: cannot be read, renamed to shard-00002.h5.damaged; some ids are lost; rows of these ids in "
        "earlier shards count again",
        "every byte is as it was written",
        "Run the same `haechi extract` again; it redoes exactly 10 videos and the videos whose ids are lost.",
    ):
        assert text in result.stdout
    assert "\x1b" not in result.stdout
    again = _run("verify", cache, "--repair")
    assert (again.exit_code, "nothing to repair" in again.stdout) == (0, True)


def test_repair_prints_json(cache: Path) -> None:
    forge(shard_path(cache, 0), lambda file: change(file, "media/split", 2, b"valid"))
    shard_path(cache, 1).write_bytes(b"haechi-cache 7\n")
    result = _run("verify", cache, "--repair", "--json")
    printed = json.loads(result.stdout)
    assert (result.exit_code, printed["ok"], printed["are_ids_lost"]) == (1, False, False)
    assert [problem["shard"] for problem in printed["found"]] == ["shard-00000.h5", "shard-00001.h5"]
    assert [problem["shard"] for problem in printed["problems"]] == ["shard-00001.h5"]
    (repaired,) = printed["repaired"]
    assert (repaired["shard"], repaired["kept"], repaired["put_aside"]) == ("shard-00000.h5", 9, "")
    assert printed["to_redo"] == repaired["videos"]
    assert len(printed["to_redo"]) == 1


def test_repair_names_twenty_ids(tmp_path: Path) -> None:
    cache = synthetic.write_cache(tmp_path / "c", num_harmful=15, num_safe=10, shard_size=30)
    forge(shard_path(cache, 0), lambda file: file.__delitem__("media/fps"))
    result = _run("verify", cache, "--repair")
    assert (result.exit_code, "and 5 more" in result.stdout) == (1, True)
    assert "no shard is left" in result.stdout
    assert result.stdout.count("video-00") == 20


def test_repair_of_a_cache_in_use_is_one_error(cache: Path) -> None:
    with FileLock(cache / ".lock"):
        result = _run("verify", cache, "--repair")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "another run is writing" in result.stderr


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize(
    ("name", "text"), [("gone", "no such"), ("empty", "no shards"), ("file", "file")], ids=["gone", "empty", "file"]
)
def test_what_is_not_a_cache_is_one_error(tmp_path: Path, command: str, name: str, text: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    result = _run(command, tmp_path / name)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert text in result.stderr


def test_a_cache_of_another_version_is_one_error(cache: Path) -> None:
    path = shard_path(cache, 1)
    path.write_bytes(path.read_bytes().replace(b"haechi-cache 2", b"haechi-cache 9", 1))
    result = _run("inspect", cache)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "format version '9'" in result.stderr
    assert _run("verify", cache).exit_code == 1


def test_caches_of_different_settings_are_one_error(cache: Path) -> None:
    write_shard(shard_path(cache, 9), [], [], synthetic.provenance(store="float32"))
    assert "store: 'float16' against 'float32'" in _run("inspect", cache).stderr
    result = _run("verify", cache)
    assert (result.exit_code, "store 'float16' against 'float32'" in result.stdout) == (1, True)


def test_an_unknown_video_is_one_error(cache: Path) -> None:
    result = _run("inspect", cache, "--video", "video-00.mp4")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean" in result.stderr


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_wrong_flags_end_with_usage(cache: Path, command: str) -> None:
    assert _run(command).exit_code == 2
    assert _run(command, cache, "--nonsense").exit_code == 2


def test_inspect_does_not_search(cache: Path) -> None:
    """That is `haechi search`."""
    result = _run("inspect", cache, "--search", "cat")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--search" in result.stderr


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_every_flag_has_help(command: str) -> None:
    for parameter in main.get_command(None, command).params:  # type: ignore[arg-type,union-attr]
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name  # type: ignore[attr-defined]


def test_help_needs_no_hdf5_and_little_time() -> None:
    """CPU time is measured, so that other work on the machine cannot make the test fail."""
    script = (
        "import sys; from haechi.cli import main\n"
        "try: main(['verify', '--help'])\n"
        "except SystemExit: print(sorted({'h5py', 'numpy', 'rich', 'torch'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, cwd=root)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.stdout.endswith("[]\n"), result.stdout + result.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
