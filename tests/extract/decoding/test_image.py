"""Images are read as people see them, and each unusual or damaged one has a defined result."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from haechi.extract.decoding.decode import sample
from haechi.extract.decoding.image import read
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.decoding.shared_frames import Output
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.sampling import Uniform
from haechi.extract.settings import ExtractSettings
from tests.sinks import Kept

LIMITS = Limits.of(ExtractSettings())
SIZE = (60, 40)
"""Width, height."""


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Red on the left, blue on the right, brighter towards the bottom; smooth, so that JPEG keeps it."""
    width, height = SIZE
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = np.linspace(100, 250, height)[:, None]
    pixels[:, width // 2 :, 2] = np.linspace(100, 250, height)[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif"])
def test_formats(picture: Image.Image, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    picture.save(path, quality=95)
    found = read(path, max_pixels=10_000)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int)[:, ::20] - np.asarray(picture).astype(int)[:, ::20]).mean() < 12


def test_the_name_does_not_matter(picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "a.mp4", "PNG")
    transform = FrameTransform(size=16, interpolation="bicubic")
    kept = Kept(*[Output(transform=transform, num_frames=4)] * 2)
    found = sample(tmp_path / "a.mp4", sampling=Uniform(frames=4), limits=LIMITS, sink=kept)
    assert (found.kind, found.num_frames, found.duration_seconds, found.fps) == ("image", 1, 0.0, 0.0)
    assert (found.width, found.height) == SIZE
    assert found.clip_seconds.tolist() == [0.0]
    assert len(found.window_start_seconds) == len(found.window_end_seconds) == 0
    assert (kept.frames(0) == transform(np.asarray(picture))[None]).all()
    assert len(kept.frames(1)) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(picture: Image.Image, tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {
        1: picture,
        2: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: picture.transpose(Image.Transpose.ROTATE_180),
        4: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: picture.transpose(Image.Transpose.TRANSPOSE),
        6: picture.transpose(Image.Transpose.ROTATE_270),
        7: picture.transpose(Image.Transpose.TRANSVERSE),
        8: picture.transpose(Image.Transpose.ROTATE_90),
    }[orientation]
    picture.save(tmp_path / "a.png", exif=exif)
    assert (read(tmp_path / "a.png", max_pixels=10_000) == np.asarray(turned)).all()


def test_modes(tmp_path: Path) -> None:
    def found(image: Image.Image, name: str = "a.png", **options: object) -> list[int]:
        image.save(tmp_path / name, **options)  # type: ignore[arg-type]
        pixels = read(tmp_path / name, max_pixels=10_000)
        assert pixels.shape == (8, 8, 3)
        return pixels[0, 0].tolist()  # type: ignore[no-any-return]

    assert found(Image.new("L", (8, 8), 77)) == [77, 77, 77]
    assert found(Image.new("1", (8, 8), 1)) == [255, 255, 255]
    assert found(Image.new("RGBA", (8, 8), (200, 0, 0, 0))) == [255, 255, 255]  # fully transparent
    assert found(Image.new("RGBA", (8, 8), (200, 0, 0, 255))) == [200, 0, 0]
    assert found(Image.new("LA", (8, 8), (0, 128))) == [127, 127, 127]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert found(palette) == [10, 20, 30]
    assert found(palette, transparency=1) == [255, 255, 255]
    assert found(Image.fromarray(np.full((8, 8), 0xC0C0, np.uint16))) == [0xC0, 0xC0, 0xC0]
    cmyk = found(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=100)
    assert cmyk[0] > 200
    assert max(cmyk[1:]) < 60


def test_the_first_frame_of_a_gif(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "a.gif", max_pixels=100)[0, 0].tolist() == [255, 0, 0]


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def png_of_size(content: bytes, width: int, height: int) -> bytes:
    """A PNG whose header declares another size, with a valid checksum."""
    import zlib

    header = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + content[24:29]
    return content[:12] + header + zlib.crc32(header).to_bytes(4) + content[33:]


BROKEN: dict[str, tuple[Callable[[Image.Image], bytes], Reason]] = {
    "cut.jpg": (lambda p: encoded(p, "JPEG")[:-200], Reason.DAMAGED),
    "cut.png": (lambda p: encoded(p, "PNG")[:100], Reason.DAMAGED),
    "cut.webp": (lambda p: encoded(p, "WEBP")[:-40], Reason.DAMAGED),
    "cut.bmp": (lambda p: encoded(p, "BMP")[:-500], Reason.DAMAGED),
    "cut.gif": (lambda p: encoded(p, "GIF")[:-100], Reason.DAMAGED),
    "head.jpg": (lambda p: encoded(p, "JPEG")[:10], Reason.DAMAGED),
    "text.bmp": (lambda p: b"BMW makes cars\n" * 20, Reason.NOT_MEDIA),
    "flipped.png": (lambda p: encoded(p, "PNG")[:60] + b"\0\0\0\0" + encoded(p, "PNG")[64:], Reason.DAMAGED),
    "bomb.png": (lambda p: png_of_size(encoded(p, "PNG"), 50_000, 50_000), Reason.TOO_LARGE),
    "bomb-2.png": (lambda p: png_of_size(encoded(p, "PNG"), 8_000, 8_000), Reason.TOO_LARGE),
    "bomb-3.png": (lambda p: png_of_size(encoded(p, "PNG"), 2**31 - 1, 2**31 - 1), Reason.TOO_LARGE),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damage_has_a_reason(picture: Image.Image, tmp_path: Path, name: str) -> None:
    make, reason = BROKEN[name]
    (tmp_path / name).write_bytes(make(picture))
    with pytest.raises(UnusableError) as caught:
        sample(tmp_path / name, sampling=Uniform(frames=4), limits=LIMITS, sink=Kept())
    assert caught.value.reason == reason


def test_the_limit_is_reported_from_the_header(picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "a.png")
    with pytest.raises(UnusableError, match="60 x 40 pixels, the limit is 2399") as caught:
        sample(tmp_path / "a.png", sampling=Uniform(frames=4), limits=replace(LIMITS, max_pixels=2399), sink=Kept())
    assert caught.value.reason == Reason.TOO_LARGE
