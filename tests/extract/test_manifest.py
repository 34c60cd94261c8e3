from pathlib import Path

import pytest

from extract.manifest import ManifestError, read_manifest


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


def test_missing_files_are_told_with_their_lines_and_kept_as_rows(data: Path) -> None:
    manifest = read_manifest(write(data, "path,label\na.mp4,1\ngone.mp4,0\n"))
    assert len(manifest.entries) == 2
    assert "missing files: 1" in manifest.notices[0]
    assert "line 3: 'gone.mp4'" in manifest.notices[0]


def test_protocols_are_only_names_of_files(data: Path) -> None:
    entries = read_manifest(write(data, "path\nhttp://example.org/a.mp4\nconcat:a.mp4|b.mp4\npipe:0\n")).entries
    assert all(e.path.is_absolute() and not e.path.exists() for e in entries)


def test_columns_that_are_not_used_are_told(data: Path) -> None:
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
        "line 5: id 'b.mp4' stands on line 3 already",
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
        ('{"path": "a.mp4", "label": true}\n', "m.jsonl", "label is 'True', text is expected"),
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
    assert manifest.notices == ("files passed over because their ending is no video's: 2",)


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


def test_links_to_folders_are_told(folders: Path) -> None:
    (folders / "safe" / "more").symlink_to(folders / "harmful")
    manifest = read_manifest(folders)
    assert len(manifest.entries) == 4
    assert "folders passed over because they are symbolic links: 1" in manifest.notices[1]


def test_names_too_long_for_the_file_system_are_missing_files(data: Path) -> None:
    manifest = read_manifest(write(data, "path\na.mp4\n" + "x" * 300 + ".mp4\n"))
    assert "missing files: 1" in manifest.notices[0]


def test_file_names_that_are_not_utf8(folders: Path) -> None:
    (folders / "safe" / "bad\udcff.mp4").write_bytes(b"x")
    with pytest.raises(ManifestError, match="bytes that are not UTF-8"):
        read_manifest(folders)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no videos in this folder"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match="no such manifest or folder"):
        read_manifest(tmp_path / "nowhere.csv")
