"""`haechi search`: the ranking is that of a brute-force search, whatever the blocks, and the command shows it."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from click.testing import CliRunner, Result

import haechi.cli
from haechi.cache.errors import CacheError
from haechi.cache.reader import Cache
from haechi.extract.samples import write_sample_set
from haechi.extract.search.ranking import MOMENTS_APART_SECONDS, NUM_MOMENTS, search
from haechi.extract.search.text import embed_texts, load_clip
from tests import synthetic
from tests.cache.forge import forge
from tests.extract import clips
from tests.miniature import shrink_slowfast

FIGHT, KITCHEN = "people fighting in a street", "an empty kitchen"
HOSTILE = "[red]\u202ex[/] 한국.mp4"  # markup of rich, and a change of writing direction


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return clips.write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def texts(made: tuple[str, Path]) -> np.ndarray:
    """The embeddings of both sentences by open_clip itself, (2, width)."""
    name, weights = made
    module = open_clip.create_model(name, load_weights=False).eval()
    module.load_state_dict(torch.load(weights, weights_only=True))
    with torch.inference_mode():
        rows: np.ndarray = module.encode_text(open_clip.get_tokenizer(name)([FIGHT, KITCHEN]), normalize=True).numpy()
    return rows


@pytest.fixture(scope="module")
def folder(made: tuple[str, Path], texts: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven videos of noise, with the first sentence in video 4 at 6 s and the second in the hostile one at 0 s.

    An older shard has the first sentence too, in a superseded row of video 2.
    """
    rng = np.random.default_rng(0)
    videos = {f"video-{i:02d}.mp4": rng.normal(size=(3 + i, clips.WIDTH)) for i in range(10)}
    videos[HOSTILE] = rng.normal(size=(1, clips.WIDTH))
    videos["video-04.mp4"][6] = 5 * texts[0]
    videos[HOSTILE][0] = 0.3 * texts[1]
    source = clips.provenance(clips.identity(*made), weights=str(made[1]))
    path = tmp_path_factory.mktemp("search") / "cache"
    clips.write_shards(path, {"video-02.mp4": texts[:1]}, source)
    return clips.write_shards(path, videos, source)


@pytest.fixture(scope="module")
def cache(folder: Path) -> Cache:
    return Cache.open(folder)


def brute_force(cache: Cache, text: np.ndarray) -> list[tuple[float, float, str]]:
    """The best score of each video, its time and the video's id, best first."""
    rows, times = cache.rows("clip", "features").astype(np.float64), cache.rows("clip", "time_seconds")
    scores = rows @ text / np.linalg.norm(rows, axis=1)
    offset = cache.offset("clip")
    best = []
    for i, id in enumerate(cache.media["id"]):
        at = offset[i] + int(scores[offset[i] : offset[i + 1]].argmax())
        best.append((float(scores[at]), float(times[at]), str(id)))
    return sorted(best, reverse=True)


def test_the_ranking_is_brute_forces(cache: Cache, made: tuple[str, Path], texts: np.ndarray) -> None:
    rows = embed_texts(load_clip(cache, model=made[0]), [FIGHT, KITCHEN]).rows
    fight, kitchen = search(cache, rows, top=100)
    for found, text in ((fight, texts[0]), (kitchen, texts[1])):
        expected = brute_force(cache, text)
        assert [(video.time_seconds, video.id) for video in found] == [(time, id) for _, time, id in expected]
        assert [video.score for video in found] == pytest.approx([score for score, _, _ in expected], abs=1e-5)
    assert (fight[0].id, fight[0].time_seconds, fight[0].label) == ("video-04.mp4", 6, 0)
    assert (kitchen[0].id, kitchen[0].time_seconds) == (HOSTILE, 0)
    for found in (fight, kitchen):
        assert found[0].score == pytest.approx(1, abs=1e-3)
        assert found[1].score < 0.95


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Twenty videos of one row of a real width: the last bits of a matrix product depend on the number of rows."""
    source = synthetic.provenance(clip_width=512)
    return Cache.open(synthetic.write_cache(tmp_path_factory.mktemp("wide") / "c", source=source, num_frames=1))


@pytest.mark.parametrize("block_rows", [1, 2, 7, 11])
def test_the_result_does_not_depend_on_the_blocks(wide: Cache, block_rows: int) -> None:
    texts = np.random.default_rng(1).normal(size=(2, 512)).astype(np.float32)
    whole = search(wide, texts, top=100)
    assert [len(found) for found in whole] == [20, 20]
    assert search(wide, texts, top=100, block_rows=block_rows) == whole
    assert search(wide, texts, top=4, block_rows=block_rows) == [found[:4] for found in whole]


def test_no_more_rows_are_read_at_once_than_a_block_has(
    cache: Cache, texts: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    read = Cache.rows

    def counted(self: Cache, stream: str, name: str, **selection: np.ndarray) -> np.ndarray:
        rows = read(self, stream, name, **selection)
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(Cache, "rows", counted)
    search(cache, texts, top=3, block_rows=15)
    assert len(sizes) > 2
    assert max(sizes) <= 15


def test_moments_are_apart_in_time(cache: Cache, texts: np.ndarray) -> None:
    for video in search(cache, texts, top=100)[0]:
        times = sorted(moment.time_seconds for moment in video.moments)
        assert (np.diff(times) >= MOMENTS_APART_SECONDS).all()
        assert len(times) <= NUM_MOMENTS
        scores = [moment.score for moment in video.moments]
        assert scores == sorted(scores, reverse=True)
        assert (video.score, video.time_seconds) == (scores[0], video.moments[0].time_seconds)
    (longest,) = [video for video in search(cache, texts, top=100)[0] if video.id == "video-09.mp4"]
    assert len(longest.moments) == NUM_MOMENTS


def test_equal_scores_and_videos_without_rows(made: tuple[str, Path], texts: np.ndarray, tmp_path: Path) -> None:
    none = np.empty((0, clips.WIDTH))
    videos = {"a.mp4": none, "c.mp4": texts[:1], "d.mp4": none, "b.mp4": texts[:1], "e.mp4": none}
    source = clips.provenance(clips.identity(*made), weights=str(made[1]))
    cache = Cache.open(clips.write_shards(tmp_path / "c", videos, source))
    for block_rows in (1, 100):
        (found,) = search(cache, texts[:1], top=100, block_rows=block_rows)
        assert [video.id for video in found] == ["c.mp4", "b.mp4"]


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_videos_with_zero_or_infinite_rows_are_named(
    made: tuple[str, Path], texts: np.ndarray, tmp_path: Path, value: float
) -> None:
    rows = np.ones((4, clips.WIDTH))
    source = clips.provenance(clips.identity(*made), weights=str(made[1]))
    videos = {f"{name}.mp4": rows for name in "abcd"}
    path = clips.write_shards(tmp_path / "c", videos, source, per_shard=4)

    def spoil(file: dict[str, np.ndarray]) -> None:
        for row in (5, 6, 15):
            file["clip/features"][row] = value

    forge(path / "shard-00000.h5", spoil)
    for block_rows in (4, 100):
        with pytest.raises(CacheError, match=r"(?s)2 videos .* - b\.mp4\n  - d\.mp4$"):
            search(Cache.open(path), texts, top=1, block_rows=block_rows)


def call(*arguments: object) -> Result:
    done = CliRunner().invoke(haechi.cli.main, [str(argument) for argument in arguments], terminal_width=200)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_the_command_shows_a_table(folder: Path, made: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    done = call("search", folder, FIGHT, KITCHEN, "--clip-model", made[0], "--top", 2)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines.index(FIGHT) < lines.index(KITCHEN)
    (planted,) = [line for line in lines if line.startswith("1.000 6.0 s")]
    assert planted.endswith("safe train video-04.mp4")
    (hostile,) = [line for line in lines if line.startswith("1.000 0.0 s")]
    assert hostile == r"1.000 0.0 s safe train [red]\u202ex[/] 한국.mp4"
    assert sum(".mp4" in line for line in lines) == 4
    assert "cosine similarity of the text and the frame" in done.stdout


def test_json_is_what_search_finds(folder: Path, cache: Cache, made: tuple[str, Path], texts: np.ndarray) -> None:
    done = call(
        "search", folder, FIGHT, KITCHEN, "--clip-model", made[0], "--clip-weights", made[1], "--json", "--top", 3
    )
    assert (done.exit_code, done.stderr) == (0, "")
    records = json.loads(done.stdout)
    assert [record.pop("search") for record in records] == [FIGHT] * 3 + [KITCHEN] * 3
    expected = [video for found in search(cache, texts, top=3) for video in found]
    for record, video in zip(records, expected, strict=True):
        assert record == {
            **asdict(video),
            "score": pytest.approx(video.score, abs=1e-6),
            "moments": [{**asdict(m), "score": pytest.approx(m.score, abs=1e-6)} for m in video.moments],
        }


def test_long_texts_are_listed_beside_the_result(folder: Path, made: tuple[str, Path]) -> None:
    done = call("search", folder, "[b]cat " * 30, "--clip-model", made[0], "--json")
    assert done.exit_code == 0
    assert "longer than the model reads, so its end was cut off: [b]cat" in done.stderr
    assert "[b]cat [b]cat" in done.stderr
    assert len(json.loads(done.stdout)) == 11


def test_mistakes_are_one_error(folder: Path, made: tuple[str, Path], tmp_path: Path) -> None:
    model = ("--clip-model", made[0])
    for arguments, code, expected in (
        ([], 2, "Missing argument 'TEXT...'"),
        ([""], 2, "a TEXT is empty: give the words to search for"),
        (["cat", " \t"], 2, "a TEXT is empty: give the words to search for"),
        (["cat", "--video", "video-00.mp4"], 2, "No such option"),
        (["cat", "--top", "0"], 2, "--top"),
        (["--top", "3", *model], 2, "Missing argument 'TEXT...'"),
        (["cat"], 1, "--clip-model local-dir:PATH"),
        (["cat", *model, "--clip-weights", "random:1"], 1, "clip.trained: True in the cache, False here"),
    ):
        done = call("search", folder, *arguments)
        assert (done.exit_code, done.stdout) == (code, ""), arguments
        assert expected in done.stderr
    assert "no such cache" in call("search", tmp_path / "gone", "cat").stderr


def test_search_is_a_command_of_its_own() -> None:
    listed = call("--help").stdout
    assert "Rank the videos of CACHE, and moments in them, by similarity to each TEXT." in " ".join(listed.split())
    lines = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line.strip()]
    assert lines[lines.index("inspect") :][:3] == ["inspect", "status", "search"]


def test_without_a_search_no_model_is_loaded(folder: Path) -> None:
    code = (
        f"import sys, haechi.cli\nhaechi.cli.main(['inspect', {str(folder)!r}], standalone_mode=False)\n"
        "print('HEAVY', sorted({'torch', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "HEAVY []" in done.stdout


def test_a_cache_of_real_videos(made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the real extraction can be searched, even if its motion backbone is untrained."""
    shrink_slowfast(monkeypatch)
    assert list(write_sample_set(tmp_path / "videos", num_harmful=1, num_safe=1))
    name, weights = made
    flags = ["--clip-model", name, "--clip-weights", f"openai={weights}", "--slowfast-weights", "random:0"]
    done = call("extract", tmp_path / "videos", "--out", tmp_path / "c", *flags, "--device", "cpu", "--frames", 8)
    assert done.exit_code == 0, done.output
    done = call("search", tmp_path / "c", FIGHT, "--clip-model", name, "--json")
    assert done.exit_code == 0, done.output
    assert {record["label"] for record in json.loads(done.stdout)} == {0, 1}
