import io
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from haechi.train.output import thumbnails
from haechi.train.output.thumbnails import make_thumbnails
from tests.heif_file import heic

av = pytest.importorskip("av", reason="av is not installed: there are no thumbnails")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: there are no thumbnails")

RED, GREEN, BLUE = (200, 20, 20), (20, 180, 20), (20, 20, 200)


def write_video(path: Path, colours: list[tuple[int, int, int]], *, width: int = 320, height: int = 240) -> Path:
    """A video with ten frames of each colour."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for colour in colours:
            for _ in range(10):
                picture = np.full((height, width, 3), colour, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def open_jpeg(jpeg: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return np.asarray(image)  # (H, W, 3)


def test_the_middle_frame_within_the_side(tmp_path: Path) -> None:
    video = write_video(tmp_path / "폭력 영상.mp4", [RED, GREEN, BLUE])
    Image.new("RGB", (100, 400), RED).save(tmp_path / "still.png")
    found = make_thumbnails([video.name, "still.png"], tmp_path, side=80)
    picture = open_jpeg(found[video.name])
    assert picture.shape == (60, 80, 3)
    assert np.abs(picture.astype(int) - GREEN).max() < 25
    assert open_jpeg(found["still.png"]).shape == (80, 20, 3)


def test_images_are_whole_and_upright(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif", reason="pi-heif is not installed")
    picture = np.full((64, 128, 3), RED, np.uint8)
    picture[:, 64:] = BLUE
    (tmp_path / "tiled.heic").write_bytes(heic([[picture[:, :64], picture[:, 64:]]]))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "turned.jpg", exif=turned, quality=95)
    found = make_thumbnails(["tiled.heic", "turned.jpg"], tmp_path, side=64)
    whole, upright = open_jpeg(found["tiled.heic"]), open_jpeg(found["turned.jpg"])
    assert (whole.shape, upright.shape) == ((32, 64, 3), (64, 32, 3))
    for first, last in ((whole[16, 8], whole[16, 56]), (upright[8, 16], upright[56, 16])):
        assert np.abs(first.astype(int) - RED).max() < 30
        assert np.abs(last.astype(int) - BLUE).max() < 30


def test_what_does_not_decode_has_none(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.mp4", [RED])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:300])
    os.mkfifo(tmp_path / "pipe.mp4")
    names = ["empty.mp4", "text.mp4", "cut.mp4", "pipe.mp4", "missing.mp4", ".", "a\0b.mp4"]
    started = time.monotonic()
    found = make_thumbnails([*names, good.name], tmp_path)
    assert set(found) == {good.name}
    assert time.monotonic() - started < thumbnails.TIME_LIMIT_SECONDS  # opening the pipe did not wait for a writer


def test_a_playlist_reaches_no_other_file(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.ts", [RED])
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{good.as_uri()}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist)
    (tmp_path / "concat.txt").write_text(f"ffconcat version 1.0\nfile '{good}'\n")
    assert set(make_thumbnails(["good.ts", "list.m3u8", "concat.txt"], tmp_path)) == {"good.ts"}


def test_no_id_leads_out_of_the_media_root(tmp_path: Path) -> None:
    outside = write_video(tmp_path / "outside.mp4", [RED])
    root = tmp_path / "media"
    (root / "inner").mkdir(parents=True)
    (root / "inside.mp4").write_bytes(outside.read_bytes())
    (root / "link.mp4").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    (root / "circle").symlink_to("circle")
    (root / "inner" / "link.mp4").symlink_to("../inside.mp4")
    (tmp_path / "root").symlink_to("media")
    inside = ["inside.mp4", "inner/../inside.mp4", "inner/link.mp4"]
    out = [str(outside), "../outside.mp4", "inner/../../outside.mp4", "link.mp4", "folder/outside.mp4", "circle"]
    for path in (root, tmp_path / "root"):
        assert list(make_thumbnails([*inside, *out], path)) == inside


@pytest.mark.parametrize("code", ["import os; os.abort()", "import time; time.sleep(60)", "print('no JPEG')"])
def test_a_child_that_crashes_hangs_or_writes_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}"\n')
    fake.chmod(0o755)
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr(thumbnails, "TIME_LIMIT_SECONDS", 1.0)
    assert make_thumbnails(["a.mp4"], tmp_path) == {}


def test_nothing_to_do() -> None:
    assert make_thumbnails([], Path()) == {}
