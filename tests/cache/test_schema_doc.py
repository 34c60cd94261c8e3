"""The tables, listings and programs in cache_schema.md agree with the code."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from haechi.cache import schema
from haechi.cache.indexed import MAX_INDEX_BYTES
from haechi.cache.shard import Shard, settings_are_complete
from haechi.cache.writer import shard_path, write_shard
from haechi.extract.decoding.reasons import STAGES, Reason
from tests import synthetic
from tests.cache.listing import listing, structure

DOCUMENT = (Path(__file__).parents[2] / "cache_schema.md").read_text(encoding="utf-8")
REAL_WIDTHS = {"clip_width": 512, "slowfast_width": 2304, "num_logits": 400}


def _block(marker: str) -> str:
    """The text of the code block after a marker."""
    found = re.search(rf"<!-- {marker}: .*? -->\n```\w+\n(.*?)\n```", DOCUMENT, re.DOTALL)
    assert found, marker
    return found[1]


def _table(marker: str) -> list[list[str]]:
    """The cells of the table after a marker, without the header."""
    found = re.search(rf"<!-- {marker}: .*? -->\n((?:\|.*\n)+)", DOCUMENT)
    assert found, marker
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()[2:]]


def _num_rows(name: str) -> int:
    found = re.search(rf"^/{name} +\((\d+)", _block("listing"), re.MULTILINE)
    assert found, name
    return int(found[1])


def test_the_listing_is_that_of_a_shard(tmp_path: Path) -> None:
    """Except for values and text lengths; the compared shard has the same numbers of rows."""
    source = synthetic.provenance(**REAL_WIDTHS)
    num_frames, rest = divmod(_num_rows("clip/features"), _num_rows("media/id"))
    assert rest == 0
    items = [
        synthetic.item(synthetic.media(f"{i}"), seed=i, num_frames=num_frames, source=source)
        for i in range(_num_rows("media/id"))
    ]
    failures = [synthetic.failure(f"f{i}") for i in range(_num_rows("failure/id"))]
    write_shard(tmp_path / "shard-00000.h5", items, failures, source)
    assert structure(_block("listing")) == structure(listing(tmp_path / "shard-00000.h5"))


def test_the_table_of_datasets_is_the_schema() -> None:
    def spelled(dtype: object) -> str:
        return "text" if dtype is str else np.dtype(dtype).name  # type: ignore[call-overload,no-any-return]

    expected = [[f"`/media/{column}`", "(N,)", spelled(dtype)] for column, dtype in schema.MEDIA_TYPES.items()]
    for stream, rows in (("clip", "T"), ("slowfast", "S")):
        for name, num_axes in schema.STREAMS[stream].items():
            shape, dtype = (f"({rows}, width)", "store") if num_axes == 2 else (f"({rows},)", "float32")
            expected.append([f"`/{stream}/{name}`", shape, dtype])
        expected.append([f"`/{stream}/offset`", "(N+1,)", "int64"])
    expected += [[f"`/failure/{column}`", "(F,)", spelled(dtype)] for column, dtype in schema.FAILURE_TYPES.items()]
    assert [row[:3] for row in _table("datasets")] == expected


def test_the_table_of_attributes_is_that_of_a_shard(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path)
    names = [name for row in _table("attributes") for name in re.findall(r"`(\w+)`", row[0])]
    with h5py.File(shard_path(tmp_path, 0)) as file:
        assert sorted(names) == sorted(file.attrs)


def test_the_table_of_failures_is_that_of_stage_1() -> None:
    assert [row[:2] for row in _table("failures")] == [[f"`{reason}`", f"`{STAGES[reason]}`"] for reason in Reason]


def test_the_numbers_in_the_text_are_those_of_the_code() -> None:
    for text in (
        f"format version {schema.FORMAT_VERSION}\n",
        f"`{schema.FORMAT}`",
        f"at most {schema.MAX_ID_BYTES} bytes long",
        f"at most {schema.MAX_MESSAGE_BYTES} bytes",
        f"within {schema.MAX_SECONDS} s of 0",
        f"longer than {schema.MAX_SECONDS} s",
        f"The first {schema.USER_BLOCK_BYTES} bytes",
        f"tail -c +{schema.USER_BLOCK_BYTES + 1} ",
        f"whole rows as fit into {schema.BLOCK_BYTES} bytes",
        f"max(1, {schema.BLOCK_BYTES} // row_bytes)",
        f"The dataset `/{schema.INDEX}`",
        f"LENGTH MUST be at most {MAX_INDEX_BYTES}, ",
        f"videos of a chunk ({schema.CHUNK_BYTES >> 20} MiB)",
        f"MUST be named `{schema.SHARD_PATTERN}`",
    ):
        assert text in DOCUMENT


def test_the_example_of_settings_is_complete() -> None:
    found = re.search(r"```json\n(.*?)\n```", DOCUMENT, re.DOTALL)
    assert found
    settings = json.loads(found[1])
    assert settings_are_complete(settings)
    fingerprint = re.search(r"^fingerprint +(\w+)$", _block("listing"), re.MULTILINE)
    assert fingerprint
    assert schema.fingerprint_of(settings) == fingerprint[1]


def test_the_seal_is_as_described(tmp_path: Path) -> None:
    found = re.search(r"\$ head -4 \S+\n(.*?)\n```", DOCUMENT, re.DOTALL)
    assert found
    seal = schema.Seal.decode((found[1] + "\n").encode().ljust(schema.USER_BLOCK_BYTES, b"\n"), where="the document")
    assert found[1] == seal.encode().decode().strip()


def test_ten_lines_of_h5py_read_a_cache(tmp_path: Path) -> None:
    synthetic.write_cache(tmp_path / "out/c", num_frames=3)
    program = _block("h5py")
    assert "haechi" not in program
    assert len(program.splitlines()) <= 11
    run = [sys.executable, "-I", "-c", program]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    (ids,) = Shard.open(shard_path(tmp_path / "out/c", 0)).read("media/id")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:8]] == ids.tolist()
    assert len(lines) == 20
    assert "(3, 8)" in lines[0]


def test_a_program_without_hdf5_reads_and_checks_a_shard(tmp_path: Path) -> None:
    source = synthetic.provenance(**REAL_WIDTHS)
    path = shard_path(tmp_path / "out/c", 0)
    path.parent.mkdir(parents=True)
    write_shard(path, [synthetic.item(synthetic.media("a"), seed=0, num_frames=100, source=source)], [], source)
    program = _block("index")
    assert not {"haechi.", "h5py"} & set(program.split())
    run = [sys.executable, "-I", "-c", program]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout[:10]) == (0, "(100, 512)"), result.stderr
    (features,) = Shard.open(path).read("clip/features")
    data = bytearray(path.read_bytes())
    data[data.index(features[90].tobytes())] ^= 1
    path.write_bytes(data)
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "AssertionError" in result.stderr


def test_the_tables_of_the_index_are_those_of_a_shard(tmp_path: Path) -> None:
    index = Shard.open(shard_path(synthetic.write_cache(tmp_path), 0)).index
    fields = json.loads(index.encode().splitlines()[0]) if index else {}
    assert sorted(row[0].strip("`") for row in _table("fields")) == sorted(fields)
    place = fields["datasets"]["clip/features"]
    assert sorted(row[0].strip("`") for row in _table("places")) == sorted(place)
    rest = "".join(_table("places")[[row[0] for row in _table("places")].index("`dtype`")][1:])
    assert all(
        f"`{each['dtype'].replace('|', chr(92) + '|')}`" in rest
        for each in fields["datasets"].values()
        if "S" not in each["dtype"]
    )


@pytest.mark.parametrize("line", _block("shell").splitlines())
def test_the_shell_reads_a_cache(tmp_path: Path, line: str) -> None:
    tool = line.split()[0]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed: the package hdf5-tools has h5ls and h5dump")
    source = synthetic.provenance(**REAL_WIDTHS)
    path = shard_path(tmp_path / "out/c", 0)
    path.parent.mkdir(parents=True)
    item = synthetic.item(synthetic.media("영상.mp4"), seed=0, source=source)
    write_shard(path, [item], [], source)
    result = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    expected = {
        "-r": "/slowfast/logits         Dataset {1, 400}",
        "/settings_json": '"trained":false',
        "/media/label": "H5T_STD_I8LE",
        "-c": "",
        "-s": f"{item.arrays['clip/features'][0, 0]:.4f}"[:6],
        "/index": '(0): "{"attributes":{',
        "+513": Shard.open(path).seal.digest,
    }
    assert all(text in result.stdout for flag, text in expected.items() if flag in line.split())
    if "/media/id" in line:
        assert "영상" not in result.stdout  # as the document warns
