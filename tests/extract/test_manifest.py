import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import haechi.cli
from haechi.extract.decoding.decode import sample
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.manifest import Manifest, ManifestError, read_manifest
from haechi.extract.sampling import Uniform
from haechi.extract.settings import ExtractSettings
from tests.sinks import Kept


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with three files that exist."""
    for name in ("a.mp4", "b.mp4", "sub/가.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_csv(data: Path) -> None:
    text = "path,label,split,group\na.mp4,1,train,cam 1\n./b.mp4,SAFE,,\n\nsub/가.mp4,,test,\n"
    manifest = read_manifest(write(data, text))
    assert [(e.id, e.label, e.split, e.group, e.line) for e in manifest.entries] == [
        ("a.mp4", 1, "train", "cam 1", 2),
        ("b.mp4", 0, "", "", 3),
        ("sub/가.mp4", -1, "test", "", 5),
    ]
    assert all(e.path.is_absolute() and e.path.exists() for e in manifest.entries)
    assert manifest.notices == ()


def test_spreadsheets_write_a_byte_order_mark_and_their_own_line_ends(data: Path) -> None:
    (data / "excel.csv").write_bytes("\ufeffpath,label\r\na.mp4,1\r\n".encode())
    assert [e.label for e in read_manifest(data / "excel.csv").entries] == [1]


def test_json_lines(data: Path) -> None:
    text = (
        '{"path": "a.mp4", "label": 1}\n\n'
        '{"path": "b.mp4", "label": "safe", "id": "b"}\n'
        '{"path": "sub/가.mp4", "label": null}\n'
    )
    manifest = read_manifest(write(data, text, "labels.jsonl"))
    assert [(e.id, e.label) for e in manifest.entries] == [("a.mp4", 1), ("b", 0), ("sub/가.mp4", -1)]


def test_root_and_absolute_paths(data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    manifest = write(elsewhere, f"path\nb.mp4\n{data / 'a.mp4'}\n")
    entries = read_manifest(manifest, root=data).entries
    assert [e.id for e in entries] == ["b.mp4", str(data / "a.mp4")]
    assert [e.path for e in entries] == [data / "b.mp4", data / "a.mp4"]


def test_the_root_of_all_folders(data: Path) -> None:
    (data / "from-root.csv").write_text("path\ndata/a.mp4\n/data/b.mp4\n")
    found = read_manifest(data / "from-root.csv", root=Path("/"))
    assert [entry.path for entry in found.entries] == [Path("/data/a.mp4"), Path("/data/b.mp4")]


def test_missing_files_are_reported_with_their_lines_and_kept_as_rows(data: Path) -> None:
    manifest = read_manifest(write(data, "path,label\na.mp4,1\ngone.mp4,0\n"))
    assert len(manifest.entries) == 2
    assert "missing files: 1" in manifest.notices[0]
    assert "line 3: 'gone.mp4'" in manifest.notices[0]


def test_protocols_are_only_names_of_files(data: Path) -> None:
    with pytest.raises(ManifestError, match=r"line 2: 'http://example\.org/a\.mp4': the scheme http:// is not read"):
        read_manifest(write(data, "path\nhttp://example.org/a.mp4\n"))
    entries = read_manifest(write(data, "path\nconcat:a.mp4|b.mp4\npipe:0\n")).entries
    assert all(e.path.is_absolute() and not e.path.exists() for e in entries)


def test_columns_that_are_not_used_are_reported(data: Path) -> None:
    assert read_manifest(write(data, "path,source\na.mp4,x\n")).notices == ("columns not used: 'source'",)


def test_everything_wrong_is_listed_at_once(data: Path) -> None:
    text = (
        "path,label,split,group,id\n"
        "a.mp4,2,train,,\n"
        "b.mp4,1,dev,,\n"
        ",1,,,\n"
        "a.mp4,1,,,b.mp4\n"
        "sub/가.mp4,1\n"
        "c\x07.mp4,1,,,\n"
    )
    with pytest.raises(ManifestError) as caught:
        read_manifest(write(data, text))
    for expected in (
        "line 2: label is '2'",
        "line 3: split is 'dev', expected train, val, test",
        "line 4: path is empty",
        "line 5: id 'b.mp4' is already on line 3",
        "line 6: 2 fields, expected 5",
        "line 7: path holds control characters",
    ):
        assert expected in str(caught.value)
    assert "wrong in 6 places" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", "m.csv", "got nothing"),
        ("file,label\na.mp4,1\n", "m.csv", "must name the column 'path'"),
        ("path,lable\na.mp4,1\n", "m.csv", "did you mean 'label'"),
        ("path,path\na.mp4,1\n", "m.csv", "named twice"),
        ("path\n", "m.csv", "holds no rows"),
        ('path\n"a.mp4\n', "m.csv", "line 2: not readable as CSV"),
        ("path\n" + "x" * 70_000 + "\n", "m.csv", "field larger than field limit"),
        ("path\n" + "x" * 5_000 + "\n", "m.csv", "path is 5000 bytes long"),
        ('{"path": "a.mp4"}\n{"path": \n', "m.jsonl", "line 2: not readable as JSON"),
        ('["a.mp4"]\n', "m.jsonl", "a JSON object is expected, got list"),
        ('{"path": 3}\n', "m.jsonl", "path is '3', text is expected"),
        ('{"path": "a.mp4", "label": 0.5}\n', "m.jsonl", "label is '0.5', expected 1, harmful"),
        ('{"path": "a.mp4", "split": true}\n', "m.jsonl", "split is 'True', text is expected"),
        ("[" * 100_000, "m.jsonl", "line 1: not readable as JSON"),
    ],
)
def test_wrong_manifests(data: Path, text: str, name: str, expected: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read_manifest(write(data, text, name))
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_other_encodings_are_refused_with_the_line(data: Path) -> None:
    (data / "latin.csv").write_bytes("path\na.mp4\ncaf\xe9.mp4\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="line 3: not UTF-8"):
        read_manifest(data / "latin.csv")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    root = tmp_path / "folders"
    for name in ("harmful/b.mp4", "harmful/deep/a.MKV", "safe/c.webm", "safe/notes.txt", "safe/.hidden.mp4", "top.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_class_folders(folders: Path) -> None:
    manifest = read_manifest(folders)
    assert [(e.id, e.label) for e in manifest.entries] == [
        ("harmful/b.mp4", 1),
        ("harmful/deep/a.MKV", 1),
        ("safe/c.webm", 0),
        ("top.mp4", -1),
    ]
    assert manifest.notices == (
        "files skipped: 1 .txt, 1 hidden",
        "2 classes: harmful = harmful, safe = safe (2 harmful, 1 safe, 1 unlabelled)",
    )


def test_other_class_names(folders: Path) -> None:
    (folders / "harmful").rename(folders / "fight")
    (folders / "labels.csv").touch()
    with pytest.raises(ManifestError) as caught:
        read_manifest(folders)
    assert "'fight'" in str(caught.value)
    assert "--positive" in str(caught.value)
    assert "labels.csv" in str(caught.value)
    assert [e.label for e in read_manifest(folders, positive="fight").entries] == [1, 1, 0, -1]
    with pytest.raises(ManifestError, match="no class folder 'war'"):
        read_manifest(folders, positive="war")


def ids(manifest: Manifest) -> list[str]:
    return [entry.id for entry in manifest.entries]


def test_links_to_files_inside_are_files(folders: Path) -> None:
    (folders / "safe" / "again.mp4").symlink_to("../harmful/b.mp4")
    (folders / "safe" / "notes.md").symlink_to("notes.txt")
    manifest = read_manifest(folders)
    assert ids(manifest) == ["harmful/b.mp4", "harmful/deep/a.MKV", "safe/again.mp4", "safe/c.webm", "top.mp4"]
    assert manifest.entries[2].path == folders / "safe" / "again.mp4"
    assert manifest.notices[:-1] == ("files skipped: 1 .md, 1 .txt, 1 hidden",)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Outside the folder: a folder with a video, a link back to the folder and a link to itself."""
    outside = tmp_path / "folders outside"  # begins with the folder's own name
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "x.mp4").write_bytes(b"x")
    (outside / "back").symlink_to(tmp_path / "folders")
    (outside / "deep" / "self").symlink_to(outside)
    return outside


def test_links_that_lead_out_are_followed_only_on_request(folders: Path, outside: Path) -> None:
    (folders / "safe" / "all").symlink_to(outside)
    (folders / "safe" / "below").symlink_to(outside / "deep")
    (folders / "safe" / "one.mp4").symlink_to(outside / "deep" / "x.mp4")
    (folders / "safe" / "one.txt").symlink_to(outside / "deep" / "x.mp4")
    (folders / "safe" / "zero.mp4").symlink_to("/dev/zero")
    own = ["harmful/b.mp4", "harmful/deep/a.MKV", "safe/c.webm", "top.mp4"]
    manifest = read_manifest(folders)
    assert ids(manifest) == own
    others, links, _ = manifest.notices
    assert others == "files skipped: 2 .txt, 1 hidden"
    assert links.startswith("symbolic links skipped: 4\n")
    for name, target in {"all": outside, "below": outside / "deep", "one.mp4": outside / "deep/x.mp4"}.items():
        assert f"'safe/{name}': leads out of the folder, to '{str(target)[:80]}' (--follow-symlinks)" in links

    manifest = read_manifest(folders, follow_symlinks=True)
    assert ids(manifest) == sorted([*own, "safe/all/deep/x.mp4", "safe/one.mp4", "safe/zero.mp4"])
    assert "symbolic links skipped: 3\n" in manifest.notices[1]
    for name in ("all/back", "all/deep/self", "below"):
        assert f"'safe/{name}': its folder is searched under another path" in manifest.notices[1]


@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_a_folder_inside_is_searched_once_in_its_own_place(folders: Path, follow_symlinks: bool) -> None:
    (folders / "harmful" / "a").symlink_to(folders / "safe")
    (folders / "safe" / "up").symlink_to("..")
    manifest = read_manifest(folders, follow_symlinks=follow_symlinks)
    assert ids(manifest) == ["harmful/b.mp4", "harmful/deep/a.MKV", "safe/c.webm", "top.mp4"]
    assert "'harmful/a': its folder is searched under another path\n  - 'safe/up': its" in manifest.notices[1]


def test_links_to_hidden_folders_inside(folders: Path) -> None:
    (folders / "safe" / "notes.txt").unlink()
    (folders / "safe" / ".hidden.mp4").unlink()
    (folders / "safe").rename(folders / ".store")
    (folders / "safe").symlink_to(".store")
    assert "'safe': leads to a hidden folder (--follow-symlinks)" in read_manifest(folders).notices[0]
    assert "safe/c.webm" in ids(read_manifest(folders, follow_symlinks=True))


@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_broken_links_are_reported_and_those_of_videos_are_missing_files(folders: Path, follow_symlinks: bool) -> None:
    (folders / "safe" / "gone.mp4").symlink_to("/nowhere/gone.mp4")
    (folders / "safe" / "disk").symlink_to("/nowhere")
    (folders / "safe" / "loop.mp4").symlink_to("loop.mp4")
    manifest = read_manifest(folders, follow_symlinks=follow_symlinks)
    assert ids(manifest)[2:5] == ["safe/c.webm", "safe/gone.mp4", "safe/loop.mp4"]
    for text in (
        "broken symbolic links: 3\n",
        "'safe/disk': leads to '/nowhere' (No such file",
        "'safe/gone.mp4': leads to '/nowhere/gone.mp4'",
        "(Too many levels of symbolic links)",
    ):
        assert text in manifest.notices[-2]


def test_the_folder_itself_may_be_a_link(folders: Path, tmp_path: Path) -> None:
    (folders / "safe" / "again.mp4").symlink_to(folders / "harmful" / "b.mp4")
    (tmp_path / "link").symlink_to(folders)
    assert ids(read_manifest(tmp_path / "link")) == ids(read_manifest(folders))
    assert read_manifest(tmp_path / "link").entries[0].path == tmp_path / "link" / "harmful" / "b.mp4"


def test_class_folders_that_are_links_are_named_where_nothing_is_found(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "harmful").symlink_to(outside / "deep")
    with pytest.raises(
        ManifestError, match=r"no videos or images in this folder(.|\n)*'harmful': leads out of the folder"
    ):
        read_manifest(tmp_path / "data")
    with pytest.raises(ManifestError, match=r"no class folder 'harmful' with media(.|\n)*--follow-symlinks"):
        read_manifest(tmp_path / "data", positive="harmful")
    (entry,) = read_manifest(tmp_path / "data", follow_symlinks=True).entries
    assert (entry.id, entry.label) == ("harmful/x.mp4", 1)


def test_validate_follows_links_on_request(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "data" / "safe").mkdir(parents=True)
    (tmp_path / "data" / "harmful").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    for folder in ("elsewhere", "data/safe"):
        shutil.copy(videos / "sound.mp4", tmp_path / folder / "a.mp4")

    def validate(*flags: str) -> str:
        arguments = ["validate", str(tmp_path / "data"), "--out", str(tmp_path / "v.csv"), "--frames", "2", *flags]
        done = CliRunner().invoke(haechi.cli.main, arguments)
        assert done.exit_code == 0, done.output
        return done.output

    assert "'harmful': leads out of the folder" in validate()
    assert "1 in the manifest = 1 used" in validate()
    assert "2 in the manifest = 2 used" in validate("--follow-symlinks")


def test_links_in_a_file_are_the_users_word(data: Path, outside: Path) -> None:
    (data / "link.mp4").symlink_to(outside / "deep" / "x.mp4")
    manifest = write(data, "path\nlink.mp4\n../" + data.name + "/a.mp4\n")
    assert [entry.path.name for entry in read_manifest(manifest).entries] == ["link.mp4", "a.mp4"]
    with pytest.raises(ManifestError, match="--follow-symlinks is for a folder"):
        read_manifest(manifest, follow_symlinks=True)


HOSTILE_PATHS = {
    "./http://example.org/a.mp4": Reason.MISSING,
    "concat:a.mp4|b.mp4": Reason.MISSING,
    "pipe:0": Reason.MISSING,
    "data:video/mp4;base64,AAAA": Reason.MISSING,
    "-i": Reason.MISSING,
    "/dev/zero": Reason.UNREADABLE,
    "pipe.mp4": Reason.UNREADABLE,
    "sub": Reason.UNREADABLE,
    "file:sound.mp4": Reason.MISSING,
}


def test_no_path_is_a_protocol_or_a_device_to_the_decoder(data: Path, videos: Path) -> None:
    os.mkfifo(data / "pipe.mp4")
    shutil.copy(videos / "sound.mp4", data / "subfile,,start,0,end,9,,:sound.mp4")
    text = "path\n" + "\n".join(f'"{path}"' for path in HOSTILE_PATHS) + '\n"subfile,,start,0,end,9,,:sound.mp4"\n'
    *hostile, file = read_manifest(write(data, text)).entries
    for entry, reason in zip(hostile, HOSTILE_PATHS.values(), strict=True):
        with pytest.raises(UnusableError) as caught:
            sample(entry.path, sampling=Uniform(frames=2), limits=Limits.of(ExtractSettings()), sink=Kept())
        assert caught.value.reason == reason, entry
    assert (
        sample(file.path, sampling=Uniform(frames=2), limits=Limits.of(ExtractSettings()), sink=Kept()).num_frames == 40
    )


def test_a_manifest_that_is_a_pipe_or_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "labels.csv")
    for file in (tmp_path / "labels.csv", Path("/dev/zero")):
        with pytest.raises(ManifestError, match="not a regular file"):
            read_manifest(file)


def test_names_too_long_for_the_file_system_are_missing_files(data: Path) -> None:
    manifest = read_manifest(write(data, "path\na.mp4\n" + "x" * 300 + ".mp4\n"))
    assert "missing files: 1" in manifest.notices[0]


def test_file_names_that_are_not_utf8(folders: Path) -> None:
    (folders / "safe" / "bad\udcff.mp4").write_bytes(b"x")
    with pytest.raises(ManifestError, match="bytes that are not UTF-8"):
        read_manifest(folders)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no videos or images in this folder"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match="no such manifest or folder"):
        read_manifest(tmp_path / "nowhere.csv")
