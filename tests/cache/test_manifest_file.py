"""Reading manifest files, also hostile ones. What extraction does with the rows: tests/extract/test_manifest.py."""

import csv
import json
import os
from pathlib import Path

import pytest

from haechi.cache.manifest_file import MAX_FIELD_CHARACTERS, ManifestError, ManifestRow, read_manifest_file
from haechi.cache.schema import MAX_ID_BYTES

EITHER = ("id", "path")


def write(folder: Path, content: str | bytes, name: str = "m.csv") -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


def wrong(file: Path, keys: tuple[str, ...] = ("path",)) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest_file(file, keys=keys)
    assert len(str(caught.value)) < 8000
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "\ufeffid,label,path\r\n b ,1,\r\n,SAFE,./x/../y.mp4\r\n\r\n../z.mp4,,\r\n"),
        (
            "m.jsonl",
            '{"id": "b", "label": 1}\n{"label": "SAFE", "path": "./x/../y.mp4"}\n\n{"id": "../z.mp4", "label": null}',
        ),
    ],
)
def test_ids_come_from_either_column(tmp_path: Path, name: str, content: str) -> None:
    read = read_manifest_file(write(tmp_path, content, name), keys=EITHER)
    assert read.rows == (
        ManifestRow(id="b", path="", label=1, split="", group="", line=2 if name == "m.csv" else 1),
        ManifestRow(id="y.mp4", path="./x/../y.mp4", label=0, split="", group="", line=3 if name == "m.csv" else 2),
        ManifestRow(id="../z.mp4", path="", label=-1, split="", group="", line=5 if name == "m.csv" else 4),
    )
    assert read.columns == {"id", "label", "path"}
    assert read.notices == ()


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    file = write(tmp_path, "id\na\n")  # printf 'id\na\n' | sha256sum
    digest = "1830fc9c555d1d487575d177ff91a65767af948c8319af93d72ca6cffa43c7f9"
    assert read_manifest_file(file, keys=EITHER).sha256 == digest


def test_what_the_id_column_says_is_a_name_and_no_path(tmp_path: Path) -> None:
    rows = read_manifest_file(write(tmp_path, "id,path\n../../etc,a.mp4\nhttp://x/y,b.mp4\n"), keys=("path",)).rows
    assert [(row.id, row.path) for row in rows] == [("../../etc", "a.mp4"), ("http://x/y", "b.mp4")]


@pytest.mark.parametrize(
    ("id", "path", "expected"),
    [
        ("", "https://host/a.mp4?signature=1", "https://host/a.mp4"),
        ("https://host/a.mp4?signature=2", "https://host/a.mp4?signature=1", "https://host/a.mp4"),
        ("https://host/watch?v=1", "https://host/a.mp4?signature=1", "https://host/watch?v=1"),
        ("https://host/watch?v=1", "a.mp4", "https://host/watch?v=1"),
        ("", "s3://bucket/a.mp4", "s3://bucket/a.mp4"),
    ],
)
def test_an_id_has_no_signature_of_its_file_and_is_else_as_given(
    tmp_path: Path, id: str, path: str, expected: str
) -> None:
    (tmp_path / "m.csv").write_text(f"id,path\n{id},{path}\n")
    (row,) = read_manifest_file(tmp_path / "m.csv", keys=("path",)).rows
    assert (row.id, row.path) == (expected, path)


def test_a_key_is_needed_in_the_header_and_in_every_row(tmp_path: Path) -> None:
    assert "must name the column 'id' or 'path'" in wrong(write(tmp_path, "label\n1\n"), EITHER)
    assert "must name the column 'path'" in wrong(write(tmp_path, "id,label\na,1\n"))
    assert "line 3: id and path are empty" in wrong(write(tmp_path, "id,label\na,1\n,1\n"), EITHER)
    assert "line 1: path is empty" in wrong(write(tmp_path, '{"id": "a"}', "m.jsonl"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,label\na,1\n".encode("utf-16"), "line 1: not UTF-8 but UTF-16"),
        ("id,label\na,1\n".encode("utf-16-le"), "line 2: holds NUL bytes"),
        (b"id\na\0b\n", "line 2: holds NUL bytes"),
        ("id\né\n가\né\n".encode("latin-1", "replace") + "가\n".encode(), "line 4: not UTF-8"),
        (b"id\n" + b"\xff\n" * 100_000, "and 99900 more"),
        (b"id\n" + b"x" * 10_000_000, "line 2: not readable as CSV (field larger than field limit (65536))"),
        (b'id\n"' + b"x\n" * 5_000_000, "line 2: not readable as CSV"),
        (b"," * 10_000_000, "10000001 columns, at most 1000"),
        (b"id\nx" + b"," * 10_000_000, "10,000,001 fields, expected 1 as in the header"),
        (b"id\n" + b"x" * (MAX_ID_BYTES + 1), "id is 4097 bytes long"),
        (b"id,label\na\n", "line 2: 1 field, expected 2 as in the header"),
        (b"id,label\na,nan\nb,1e0\n", "line 3: label is '1e0'"),
        (b"id\na\x1b[2Jb\n\xe2\x80\xae\n", "line 2: id holds control characters"),
        (b"id,lable,Split\na,1,\n", "unknown column 'Split'; did you mean 'split'?"),
    ],
)
def test_hostile_csv(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in wrong(write(tmp_path, content), EITHER)


@pytest.mark.parametrize("limit", [10, 1 << 30])
def test_the_field_limit_of_the_process_stays(tmp_path: Path, limit: int) -> None:
    """Other code in the process may need longer fields. Manifests have their own limit, whatever the process has."""
    good = write(tmp_path, "id\n" + "x" * 1000 + "\n", "good.csv")
    bad = write(tmp_path, "id\n" + "x" * (MAX_FIELD_CHARACTERS + 1), "bad.csv")
    misspelt = write(tmp_path, "lable\n", "misspelt.csv")
    before = csv.field_size_limit(limit)
    try:
        assert len(read_manifest_file(good, keys=EITHER).rows) == 1
        assert csv.field_size_limit() == limit
        assert "field larger than field limit (65536)" in wrong(bad, EITHER)
        assert csv.field_size_limit() == limit
        assert "must name the column" in wrong(misspelt, EITHER)
        assert csv.field_size_limit() == limit
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"path": "' + "x" * 10_000_000 + '"}', "line 1: 10000012 characters long, at most 1048576"),
        ("x" * 10_000_000, "line 1: 10000000 characters long"),
        ('{"path": "' + "x" * 5000 + '"}', "line 1: path is 5000 bytes long"),
        ("[" * 100_000, "line 1: not readable as JSON"),
        ('{"path": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 1: not readable as JSON"),
        ('{"path": "a", "label": ' + "1" * 100_000 + "}", "line 1: not readable as JSON (a number of 100000 digits)"),
        ('{"path": "a", "label": NaN}', "line 1: label is 'nan', text is expected"),
        ('{"path": "a", "label": 1.5}', "line 1: label is '1.5', expected 1, harmful, true or yes; 0, safe"),
        ('{"path": "a", "split": 1.0}', "line 1: split is '1.0', text is expected"),
        ('{"path": "a", "label": 1e999}', "line 1: label is 'inf', text is expected"),
        ('{"path": "a", "label": {"x": [1]}}', "line 1: label is a dict, text is expected"),
        ('{"path": "a"}\n{"path": "b", "label": 1, "label": 0}', "line 2: not readable as JSON (keys that occur twice"),
        ('{"path": "a", "lable": 1}', "line 1: unknown column 'lable'; did you mean 'label'?"),
        ('{"path": "a\\u0000b"}', "line 1: path holds control characters"),
        ('{"path": "a\\ud800b"}', "line 1: path holds control characters or bytes that are not UTF-8"),
        ('{"path": "a"}\n"b"\nnull\n', "line 3: a JSON object is expected, got NoneType"),
        (json.dumps({"path": "a"} | {f"k{i}": 1 for i in range(2000)}), "line 1: 2001 keys, at most 1000"),
    ],
)
def test_hostile_json_lines(tmp_path: Path, content: str, expected: str) -> None:
    assert expected in wrong(write(tmp_path, content, "m.jsonl"))


@pytest.mark.parametrize("depth", range(100, 1100, 7))
def test_lists_as_deep_as_python_goes_are_not_a_crash(tmp_path: Path, depth: int) -> None:
    text = wrong(write(tmp_path, '{"path": ' + "[" * depth + "]" * depth + "}", "m.jsonl"))
    assert "path is a list" in text or "not readable as JSON" in text


def test_every_line_that_is_wrong_is_listed(tmp_path: Path) -> None:
    content = b"\xffid\na\n\xff\nb\n\xff\n"
    assert [line[:11] for line in wrong(write(tmp_path, content)).splitlines()[1:]] == [
        f"  - line {n}:" for n in (1, 3, 5)
    ]


def test_unused_columns_are_listed_and_stay_bounded(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"path": f"{i}.mp4", f"key {i}\x1b": 1}) + "\n" for i in range(500))
    (notice,) = read_manifest_file(write(tmp_path, rows, "m.jsonl"), keys=("path",)).notices
    assert notice.startswith("columns not used: 'key 0\\x1b'")
    assert notice.endswith("and 480 more")


def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for file in (tmp_path / "pipe.csv", Path("/dev/zero"), tmp_path):
        assert "not a regular file but a folder, pipe or device" in wrong(file)
    assert "cannot be read (No such file or directory)" in wrong(tmp_path / "gone.csv")


def test_a_file_too_large_to_be_a_manifest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haechi.cache.manifest_file.MAX_FILE_BYTES", 10)
    assert "larger than 10 bytes, the limit for a manifest" in wrong(write(tmp_path, "path\n" + "a\n" * 10))
    assert len(read_manifest_file(write(tmp_path, "path\naaaaa"), keys=("path",)).rows) == 1
