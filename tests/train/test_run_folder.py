import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from haechi.cache.atomic import exchange, replace_text
from haechi.train.errors import TrainError
from haechi.train.run_folder import experiments_folder, run_folder
from tests.train.killed_runs import WAYS, partials


def write_run(out: Path, content: str) -> None:
    with run_folder(out) as partial:
        (partial / "metrics.json").write_text(json.dumps({"format": "haechi-run", "content": content}))
        (partial / "model.pt").write_text(content)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_can_be_repeated_and_other_files_in_it_stay(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    write_run(out, "first")
    (out / "notes.txt").write_text("mine")
    write_run(out, "second")
    assert (out / "model.pt").read_text() == "second"
    assert names(out) == {"metrics.json", "model.pt", "notes.txt"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, TrainError, OSError(errno.ENOSPC, "full")])
def test_a_run_that_fails_leaves_nothing_new(tmp_path: Path, error: type[BaseException]) -> None:
    def fail(out: Path) -> None:
        with run_folder(out) as partial:
            (partial / "model.pt").write_text("half")
            raise error

    with pytest.raises((KeyboardInterrupt, TrainError)):
        fail(tmp_path / "new")
    assert names(tmp_path) == set()
    write_run(tmp_path / "old", "good")
    with pytest.raises((KeyboardInterrupt, TrainError)):
        fail(tmp_path / "old")
    assert (tmp_path / "old" / "model.pt").read_text() == "good"
    assert names(tmp_path / "old") == {"metrics.json", "model.pt"}


def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(TrainError, match="new: No space left on device; the run was not written"),
        run_folder(tmp_path / "new"),
    ):
        raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize("name", ["photo.jpg", "metrics.json"])
def test_a_folder_that_is_not_a_run_is_never_written_to(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(TrainError, match="only an earlier run is replaced"):
        write_run(tmp_path, "x")
    assert names(tmp_path) == {name}


def test_what_a_killed_run_left_is_not_an_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".partial-abc").mkdir()
    write_run(tmp_path, "x")
    assert names(tmp_path) == {"metrics.json", "model.pt"}


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(TrainError, match="is a file"):
        write_run(tmp_path / "run", "x")
    with pytest.raises(TrainError, match=r"Not a directory|File exists"):
        write_run(tmp_path / "run" / "below", "x")


def write_experiments(out: Path, *folders: str) -> None:
    with experiments_folder(out, list(folders)):
        for folder in folders:
            write_run(out / folder, folder)
        replace_text(out / "experiments.json", json.dumps({"format": "haechi-experiments"}))


def test_experiments_can_be_repeated_and_other_runs_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_experiments(out, "lr=1/seed-0", "lr=1/seed-1")
    write_experiments(out, "lr=1/seed-1", "lr=2/seed-0")
    assert names(out) == {"lr=1", "lr=2", "experiments.json"}
    assert names(out / "lr=1") == {"seed-0", "seed-1"}


def test_experiments_and_a_run_never_replace_each_other(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "x")
    with pytest.raises(TrainError, match=r"holds files but no experiments"):
        write_experiments(tmp_path / "run", "seed-0")
    write_experiments(tmp_path / "many", "seed-0")
    with pytest.raises(TrainError, match=r"holds files but no run"):
        write_run(tmp_path / "many", "x")


def test_a_foreign_folder_in_the_place_of_a_run_is_an_error_before_training(tmp_path: Path) -> None:
    write_experiments(tmp_path, "seed-0")
    (tmp_path / "seed-1").mkdir()
    (tmp_path / "seed-1" / "photo.jpg").write_text("x")
    with pytest.raises(TrainError, match="seed-1: holds files"), experiments_folder(tmp_path, ["seed-0", "seed-1"]):
        pytest.fail("trained")


def test_finished_experiments_outlive_the_others(tmp_path: Path) -> None:
    def interrupt(out: Path) -> None:
        with experiments_folder(out, ["seed-0", "seed-1"]):
            if out.name == "some":
                write_run(out / "seed-0", "x")
            raise KeyboardInterrupt

    for name in ("none", "some"):
        with pytest.raises(KeyboardInterrupt):
            interrupt(tmp_path / name)
    assert names(tmp_path) == {"some"}
    assert names(tmp_path / "some") == {"seed-0"}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_killed_at_any_step_leaves_the_old_one_or_the_new_one(tmp_path: Path, way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.killed_runs", way, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_files_of_the_user_stay_the_same_files(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "first")
    log = (tmp_path / "run" / "log.txt").open("w")
    (tmp_path / "run" / "link").symlink_to("nowhere")
    (tmp_path / "run" / "model.pt").with_name("copies").mkdir()
    (tmp_path / "run" / "copies" / "model.pt").write_text("mine")
    (tmp_path / "run").chmod(0o750)
    write_run(tmp_path / "run", "second")
    with log:
        log.write("still written to")
    assert (tmp_path / "run" / "log.txt").read_text() == "still written to"
    assert (tmp_path / "run" / "link").readlink() == Path("nowhere")
    assert (tmp_path / "run" / "copies" / "model.pt").read_text() == "mine"
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o750
    assert names(tmp_path / "run") == {"metrics.json", "model.pt", "log.txt", "link", "copies"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_folders_of_the_user_keep_their_owner(tmp_path: Path) -> None:
    out = tmp_path / "run"
    write_run(out, "first")
    (out / "notes").mkdir()
    for folder in (out, out / "notes"):
        os.chown(folder, 1000, 1000)
        folder.chmod(0o2770)
    write_run(out, "second")
    assert (out / "model.pt").read_text() == "second"
    for folder in (out, out / "notes"):
        state = folder.stat()
        assert (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (1000, 1000, 0o2770)


def test_files_that_are_written_during_the_replacement_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    write_run(out, "first")
    (out / "notes").mkdir()
    for name in ("a.txt", "notes/b.txt", "notes/c.txt"):
        (out / name).write_text("early")

    def late(first: Path, second: Path) -> None:
        (out / "a.txt").write_text("late")
        (out / "notes" / "new").write_text("late")
        (out / "notes" / "new").replace(out / "notes" / "b.txt")
        (out / "more").mkdir()
        (out / "more" / "d.txt").write_text("late")
        exchange(first, second)

    monkeypatch.setattr("haechi.train.run_folder.exchange", late)
    write_run(out, "second")
    texts = {
        name: (out / name).read_text() for name in ("model.pt", "a.txt", "notes/b.txt", "notes/c.txt", "more/d.txt")
    }
    assert list(texts.values()) == ["second", "late", "late", "early", "late"]
    assert partials(tmp_path) == []


def test_a_long_name_and_links_in_a_circle(tmp_path: Path) -> None:
    out = tmp_path / ("ü" * 127)
    for content in ("first", "second"):
        write_run(out, content)
    assert (out / "model.pt").read_text() == "second"
    assert partials(tmp_path) == []
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(TrainError, match="circle: Too many levels of symbolic links; the run was not written"):
        write_run(tmp_path / "circle", "first")


def test_a_link_to_the_folder_of_a_run_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    write_run(tmp_path / "run", "first")
    write_run(tmp_path / "run", "second")
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "disk" / "model.pt").read_text() == "second"
    assert names(tmp_path) == {"run", "disk"}


def test_a_second_training_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    for out in (tmp_path / "run", tmp_path / "run"):  # a new folder, then one that holds a run
        with run_folder(out) as partial:
            with pytest.raises(TrainError, match="run: another command is writing to this folder"):
                write_run(out, "second")
            write_run(tmp_path / "run-2", "other")
            (partial / "metrics.json").write_text('{"format": "haechi-run"}')
            (partial / "model.pt").write_text("first")
        assert (out / "model.pt").read_text() == "first"
    with experiments_folder(tmp_path / "many", ["seed-0"]):
        with pytest.raises(TrainError, match="many: another command is writing to this folder"):
            write_experiments(tmp_path / "many", "seed-0")
        write_run(tmp_path / "many" / "seed-0", "first")
    assert partials(tmp_path) == []


def test_experiments_remove_what_killed_ones_left(tmp_path: Path) -> None:
    for place in ("lr=1/.partial-seed-0-abcdefgh", ".partial-experiments-abcdefgh"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model.pt").write_text("half")
    write_experiments(tmp_path, "lr=2/seed-0")
    assert partials(tmp_path) == []


def test_names_are_exchanged_or_both_stay(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    exchange(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name / "file").read_text() for name in "ab"] == ["b", "a"]
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "missing")
    assert names(tmp_path) == {"a", "b"}
