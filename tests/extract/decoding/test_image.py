"""Images are read as people see them, and each unusual or damaged one has a defined result."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from haechi.extract.decoding import exif, heif
from haechi.extract.decoding.decode import sample
from haechi.extract.decoding.image import is_image, read
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.decoding.shared_frames import Output
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.samples import scene, write_video
from haechi.extract.sampling import Uniform
from haechi.extract.settings import ExtractSettings
from tests.heif_file import box, heic
from tests.sinks import Kept
from tests.torture.odd_exif import EMBED, TURNED, encode, odd_exif, with_jpeg_exif, with_png_chunk

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


def found(path: Path, content: bytes) -> np.ndarray:
    """The pixels of a file of these bytes."""
    path.write_bytes(content)
    return read(path, max_pixels=1_000_000)


def refused(path: Path, content: bytes, reason: Reason, *, max_pixels: int = 1_000_000) -> str:
    """The message with which a file of these bytes is refused."""
    path.write_bytes(content)
    with pytest.raises(UnusableError) as caught:
        sample(path, sampling=Uniform(frames=4), limits=replace(LIMITS, max_pixels=max_pixels), sink=Kept())
    assert caught.value.reason == reason
    return caught.value.message


def stated(order: str, orientation: int, *, type: int = 3, layout: str = "H") -> bytes:
    """EXIF with an orientation alone; `order` as in `struct`."""
    value = struct.pack(order + layout, orientation).ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HLH", 42, 8, 1)
    return head + struct.pack(order + "HHL", 0x0112, type, 1) + value + bytes(4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", EMBED)
def test_exif_rotation(tmp_path: Path, name: str, order: str) -> None:
    kind, embed = EMBED[name]
    plain = found(tmp_path / name, encode(kind))
    for orientation, turned in TURNED.items():
        content = embed(encode(kind), stated(order, orientation))
        assert (found(tmp_path / name, content) == turned(plain)).all()
        content = embed(encode(kind), stated(order, orientation, type=4, layout="L"))  # LONG, as some programs write
        assert (found(tmp_path / name, content) == turned(plain)).all()
    for orientation in (0, 9, 65535):
        assert (found(tmp_path / name, embed(encode(kind), stated(order, orientation))) == plain).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_rotation_by_xmp_counts_where_exif_states_none(tmp_path: Path, kind: str) -> None:
    plain = found(tmp_path / "a", encode(kind))
    for xmp in (b'<x tiff:Orientation="6"/>', b"<tiff:Orientation>6</tiff:Orientation>"):
        if kind == "PNG":
            text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)
            content = with_png_chunk(encode(kind), b"iTXt", text)
        elif kind == "JPEG":
            content = with_segment(encode(kind), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)
        else:
            buffer = io.BytesIO()
            with Image.open(io.BytesIO(encode(kind))) as opened:
                opened.save(buffer, kind, xmp=xmp, lossless=True)
            content = buffer.getvalue()
        assert (found(tmp_path / "a", content) == TURNED[6](plain)).all()
        if kind == "JPEG":
            assert (found(tmp_path / "a", with_jpeg_exif(content, stated("<", 3))) == TURNED[3](plain)).all()


def test_odd_exif_entries_change_nothing(tmp_path: Path) -> None:
    plain = {name: found(tmp_path / name, encode(kind)) for name, (kind, _) in EMBED.items()}
    for name, content, orientation in odd_exif(40):
        turned = TURNED[orientation](plain[name.partition("-")[2]])
        assert (found(tmp_path / name, content) == turned).all(), name


def test_no_bytes_make_the_reader_of_exif_fail() -> None:
    rng = np.random.default_rng(0)
    whole = stated("<", 6)
    for i in range(2000):
        content = bytearray(whole[: int(rng.integers(0, len(whole) + 1))])
        for at in rng.integers(0, len(whole), 3):
            content[at : at + 1] = rng.bytes(1)
        assert exif.orientation(bytes(content) if i % 2 else rng.bytes(40), rng.bytes(20)) in range(1, 9)


def with_segment(content: bytes, marker: int, payload: bytes) -> bytes:
    """Put a segment at the start of a JPEG."""
    return content[:2] + bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2) + payload + content[2:]


def with_bad_checksum(content: bytes, kind: bytes, data: bytes) -> bytes:
    altered = bytearray(with_png_chunk(content, kind, data))
    altered[altered.index(kind) + 4 + len(data)] ^= 1
    return bytes(altered)


ODD_PNG = {
    "text with a wrong checksum": lambda png: with_bad_checksum(png, b"tEXt", b"Title\0x"),
    "colour profile with a wrong checksum": lambda png: with_bad_checksum(png, b"iCCP", b"x\0\0"),
    "long text": lambda png: with_png_chunk(png, b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 21))),
    "unknown compression": lambda png: with_png_chunk(png, b"zTXt", b"x\0\7abc"),
    "unknown compression of a profile": lambda png: with_png_chunk(png, b"iCCP", b"x\0\7abc"),
    "empty profile": lambda png: with_png_chunk(png, b"iCCP", b""),
    "short resolution": lambda png: with_png_chunk(png, b"pHYs", b"x"),
    "short gamma": lambda png: with_png_chunk(png, b"gAMA", b"x"),
    "short colours": lambda png: with_png_chunk(png, b"cHRM", b"x"),
    "text called transparency": lambda png: with_png_chunk(png, b"tEXt", b"transparency\0none"),
    "text called interlace": lambda png: with_png_chunk(png, b"tEXt", b"interlace\0Adam7"),
    "text called bbox": lambda png: with_png_chunk(png, b"tEXt", b"bbox\0x"),
    "raw profile without digits": lambda png: with_png_chunk(png, b"tEXt", b"Raw profile type exif\0\nexif\n5\nxyz"),
    "broken animation": lambda png: with_png_chunk(png, b"fcTL", b"x"),
}
ODD_JPEG = {
    "short colour profile": lambda jpeg: with_segment(jpeg, 0xE2, b"ICC_PROFILE\0"),
    "short JFIF": lambda jpeg: with_segment(jpeg, 0xE0, b"JFIF"),
    "short Adobe": lambda jpeg: with_segment(jpeg, 0xEE, b"Adobe"),
    "short Photoshop": lambda jpeg: with_segment(jpeg, 0xED, b"Photoshop 3.0\x008BIM\0\0"),
    "EXIF of another kind": lambda jpeg: with_jpeg_exif(jpeg, b"not a TIFF"),
}


@pytest.mark.parametrize("what", ODD_PNG)
def test_odd_metadata_in_png(tmp_path: Path, what: str) -> None:
    assert (found(tmp_path / "a", ODD_PNG[what](encode("PNG"))) == found(tmp_path / "b", encode("PNG"))).all()


@pytest.mark.parametrize("what", ODD_JPEG)
def test_odd_metadata_in_jpeg(tmp_path: Path, what: str) -> None:
    assert (found(tmp_path / "a", ODD_JPEG[what](encode("JPEG"))) == found(tmp_path / "b", encode("JPEG"))).all()


def test_what_decides_about_colours_stays_in_a_jpeg(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    content = encoded(cmyk, "JPEG")
    assert b"Adobe" in content  # says that the levels are stored inverted
    icc = with_segment(content, 0xE2, b"ICC_PROFILE\0\1\1profile")
    assert (found(tmp_path / "a.jpg", icc) == np.asarray(cmyk.convert("RGB"))).all()


def png(levels: np.ndarray, bit_depth: int, transparent: bytes) -> bytes:
    """A PNG of grey (H, W) or RGB (H, W, 3) levels with a transparent value; one row of 2 or 4 bits fills its bytes."""
    height, width = levels.shape[:2]
    if bit_depth == 16:
        rows = [row.astype(">u2").tobytes() for row in levels]
    else:
        bits = [(row[:, None] >> np.arange(bit_depth - 1, -1, -1) & 1).ravel() for row in levels]
        rows = [np.packbits(row).tobytes() for row in bits]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = struct.pack(">IIBBBBB", width, height, bit_depth, 2 if levels.ndim == 3 else 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", head), chunk(b"tRNS", transparent), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("bit_depth", [2, 4, 16])
def test_a_transparent_grey_level_of_a_png_is_white(tmp_path: Path, bit_depth: int) -> None:
    most = (1 << bit_depth) - 1
    levels = np.arange(4)[None] if bit_depth == 2 else np.array([[0, 1, 2, most]]) * (1 if bit_depth == 4 else 257)
    levels = np.minimum(levels, most)
    for transparent in levels[0]:
        grey = found(tmp_path / "a.png", png(levels, bit_depth, int(transparent).to_bytes(2)))[0, :, 0]
        expected = np.where(levels[0] == transparent, 255, levels[0] * 255 // most)
        assert grey.tolist() == expected.tolist()


def test_a_transparent_grey_level_is_compared_in_all_16_bits(tmp_path: Path) -> None:
    levels = np.array([[0x1234, 0x1235, 0x1233, 0xFFFF]])
    grey = found(tmp_path / "a.png", png(levels, 16, b"\x12\x34"))[0, :, 0]
    assert grey.tolist() == [255, 0x1235 // 257, 0x1233 // 257, 255]


def test_a_transparent_colour_of_16_bits_is_white(tmp_path: Path) -> None:
    levels = np.array([[[0x1234, 0x5678, 0x9ABC], [0x2234, 0x5678, 0x9ABC]]])
    colours = found(tmp_path / "a.png", png(levels, 16, bytes.fromhex("123456789abc")))
    assert colours.tolist() == [[[255, 255, 255], [0x22, 0x56, 0x9A]]]


def test_modes(tmp_path: Path) -> None:
    def corner(image: Image.Image, name: str = "a.png", **options: object) -> list[int]:
        image.save(tmp_path / name, **options)  # type: ignore[arg-type]
        pixels = read(tmp_path / name, max_pixels=10_000)
        assert pixels.shape == (8, 8, 3)
        return pixels[0, 0].tolist()  # type: ignore[no-any-return]

    assert corner(Image.new("L", (8, 8), 77)) == [77, 77, 77]
    assert corner(Image.new("1", (8, 8), 1)) == [255, 255, 255]
    assert corner(Image.new("RGBA", (8, 8), (200, 0, 0, 0))) == [255, 255, 255]  # fully transparent
    assert corner(Image.new("RGBA", (8, 8), (200, 0, 0, 255))) == [200, 0, 0]
    assert corner(Image.new("LA", (8, 8), (0, 128))) == [127, 127, 127]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert corner(palette) == [10, 20, 30]
    assert corner(palette, transparency=1) == [255, 255, 255]
    assert corner(Image.fromarray(np.full((8, 8), 0xC0C0, np.uint16))) == [0xC0, 0xC0, 0xC0]
    cmyk = corner(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=100)
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


def colours() -> np.ndarray:
    """(128, 192, 3): colours and squares, so that a missing or misplaced tile shows."""
    y, x = np.mgrid[:128, :192]
    return np.stack([x * 255 // 191, y * 255 // 127, (x // 16 + y // 16) % 2 * 200], axis=2).astype(np.uint8)


def in_tiles(picture: np.ndarray) -> list[list[np.ndarray]]:
    """The picture in tiles of 64 x 64."""
    height, width = picture.shape[:2]
    return [[picture[y : y + 64, x : x + 64] for x in range(0, width, 64)] for y in range(0, height, 64)]


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    """Both (H, W, 3) uint8; the encoder loses a few levels."""
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= 6


needs_heif = pytest.mark.skipif(not heif.IS_INSTALLED, reason="pi-heif is not installed")


@needs_heif
@pytest.mark.parametrize("name", ["a.heic", "a.jpg", "a.mp4", "a"])
def test_the_tiles_of_a_heic_are_joined(tmp_path: Path, name: str) -> None:
    assert_close(found(tmp_path / name, heic(in_tiles(colours()))), colours())
    decoded = sample(tmp_path / name, sampling=Uniform(frames=4), limits=LIMITS, sink=Kept())
    assert (decoded.kind, decoded.width, decoded.height) == ("image", 192, 128)


@needs_heif
@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("mirror_axis", [None, 0, 1])
def test_a_heic_is_turned_once(tmp_path: Path, quarter_turns: int, mirror_axis: int | None) -> None:
    """Its EXIF and XMP repeat the orientation, and do not count (ISO/IEC 23008-12, annex A)."""
    repeated = [(b"Exif", bytes(4) + stated("<", 6)), (b"mime", b'<x tiff:Orientation="6"/>')]
    content = heic([[colours()]], quarter_turns=quarter_turns, mirror_axis=mirror_axis, metadata=repeated)
    turned = np.rot90(colours(), quarter_turns)
    turned = turned if mirror_axis is None else turned[::-1] if mirror_axis == 0 else turned[:, ::-1]
    assert_close(found(tmp_path / "a.heic", content), turned)


@needs_heif
def test_kinds_of_heic(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.heic", colours()
    assert_close(found(path, heic([[whole]], pixel_format="yuv444p10le")), whole)
    grey = np.repeat(whole[:, :, :1], 3, axis=2)
    assert_close(found(path, heic([[whole[:, :, 0]]], pixel_format="gray")), grey)
    assert_close(found(path, heic([[whole[:, :, 0]]], pixel_format="gray10le")), grey)
    alpha = np.zeros(whole.shape[:2], np.uint8)
    alpha[:, :96] = 255
    for tiles in ([[whole]], in_tiles(whole)):
        on_white = np.where(alpha[:, :, None] > 0, whole, np.uint8(255))
        assert_close(found(path, heic(tiles, alpha=alpha)), on_white)
    odd = [(b"Exif", b""), (b"mime", b"\xff\xfe")]
    assert_close(found(path, heic([[whole]], metadata=odd)), whole)


@needs_heif
def test_damaged_heic(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    for content in (heic(in_tiles(colours())), heic(in_tiles(colours()), to_the_end=True)):
        cuts = (40, 200, len(content) // 2, len(content) - 1)
        messages = [refused(path, content[:cut], Reason.DAMAGED) for cut in cuts]
        assert messages[-1] == f"cut off at byte {cuts[-1]}: its index lists data up to byte {len(content)}"
    refused(path, heic(in_tiles(colours()), size=(400, 300)), Reason.DAMAGED)  # more than its tiles
    assert "main picture" in refused(path, heic([[colours()]]).replace(b"hvcC", b"xxxx"), Reason.DAMAGED)


@needs_heif
def test_limits_of_heic(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    text = refused(path, heic(in_tiles(colours())), Reason.TOO_LARGE, max_pixels=24_575)
    assert text == "192 x 128 pixels, the limit is 24575 pixels (--max-pixels)"
    assert "60000 x 60000" in refused(path, heic(in_tiles(colours()), size=(60_000, 60_000)), Reason.TOO_LARGE)


def test_a_heic_without_its_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "IS_INSTALLED", False)
    text = refused(tmp_path / "a.jpg", heic([[colours()]]), Reason.NOT_MEDIA)
    assert text == "HEIC image: needs the package pi-heif (pip install pi-heif)"


def avif(picture: np.ndarray, **options: object) -> bytes:
    """(H, W, 3) or (H, W, 4) uint8, nearly without loss."""
    buffer = io.BytesIO()
    settings = {"quality": 100, "subsampling": "4:4:4", "speed": 10} | options
    Image.fromarray(picture).save(buffer, "AVIF", **settings)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.avif", "a.heic", "a.jpg", "a.mp4"])
def test_avif(tmp_path: Path, name: str) -> None:
    assert_close(found(tmp_path / name, avif(colours())), colours())


def test_kinds_of_avif(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.avif", colours()
    for orientation, turned in TURNED.items():  # written as `irot` and `imir`
        assert_close(found(path, avif(whole, exif=stated("<", orientation))), turned(whole))
    assert_close(found(path, avif(whole, xmp=b'<x tiff:Orientation="6"/>')), whole)
    alpha = np.full((*whole.shape[:2], 1), 255, np.uint8)
    alpha[:, 96:] = 0
    on_white = np.where(alpha > 0, whole, np.uint8(255))
    assert_close(found(path, avif(np.concatenate([whole, alpha], axis=2))), on_white)
    sequence = avif(whole, save_all=True, append_images=[Image.new("RGB", (192, 128), "red")])
    assert sequence[8:12] == b"avis"
    assert_close(found(path, sequence), whole)
    other_brand = avif(whole)
    assert_close(found(path, other_brand[:8] + b"miaf" + other_brand[12:]), whole)


def test_odd_exif_in_avif(tmp_path: Path) -> None:
    """Pillow alone fails on the maker's name of another type."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "M" * 23
    content = avif(colours(), exif=exif)
    assert_close(found(tmp_path / "a.avif", content), TURNED[6](colours()))
    entry = struct.pack("<HHL", 0x010F, 2, 24) if b"II*\0" in content else struct.pack(">HHL", 0x010F, 2, 24)
    odd = struct.pack("<HHL" if b"II*\0" in content else ">HHL", 0x010F, 5, 1)
    assert content.count(entry) == 1
    assert_close(found(tmp_path / "a.avif", content.replace(entry, odd)), TURNED[6](colours()))


def test_damaged_avif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = tmp_path / "a.avif", avif(colours())
    for cut in (40, len(content) // 2, len(content) - 1):
        refused(path, content[:cut], Reason.DAMAGED)
    refused(path, content, Reason.TOO_LARGE, max_pixels=24_575)
    at = content.index(b"ispe") + 8
    huge = content[:at] + struct.pack(">II", 60_000, 60_000) + content[at + 8 :]
    assert "60000 x 60000" in refused(path, huge, Reason.TOO_LARGE)
    monkeypatch.setattr("PIL.features.check", lambda feature: feature != "avif")
    assert "needs Pillow with AVIF" in refused(path, content, Reason.NOT_MEDIA)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small MP4."""
    frames = scene(seed=0, restless=False, num_frames=4, height=48, width=64)
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", frames).read_bytes()


def test_brands_decide_between_pictures_and_videos(tmp_path: Path, video: bytes) -> None:
    path, picture = tmp_path / "a", heic([[colours()]])
    head, rest = picture[: picture[3]], video[video[3] :]

    def has_picture(content: bytes) -> bool:
        path.write_bytes(content)
        return is_image(path)

    for brands in ([b"heic"], [b"heix"], [b"mif1", b"heic"], [b"msf1", b"hevc"], [b"hevc"], [b"avif"], [b"avis"]):
        assert has_picture(box(b"ftyp", brands[0], bytes(4), *brands) + picture[len(head) :])
    assert has_picture(box(b"ftyp", b"isom", bytes(4), b"mif1", b"heic") + picture[len(head) :])
    assert not has_picture(box(b"ftyp", b"isom", bytes(4), b"isom") + picture[len(head) :])
    for major in (b"isom", b"mp42", b"qt  ", b"msf1", b"hevc", b"avis"):  # also sequences without a main picture
        assert not has_picture(box(b"ftyp", major, bytes(4), b"isom", b"heic", b"mif1", b"avif") + rest)
        assert sample(path, sampling=Uniform(frames=4), limits=LIMITS, sink=Kept()).kind == "video"


UNREADABLE = {
    "TIFF image": b"II*\0\x08\0\0\0",
    "TIFF": b"MM\0*\0\0\0\x08",
    "raw photo based on it": b"MM\0+\0\x08\0\0",
    "Canon CR3 raw photo": box(b"ftyp", b"crx ", bytes(4), b"crx isom"),
    "JPEG XL image": b"\xff\x0a\xfa\x7f",
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl ", bytes(4), b"jxl "),
    "JPEG 2000 image": b"\xff\x4f\xff\x51\0\x2f",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 ", bytes(4), b"jp2 "),
    "Photoshop (PSD) image": b"8BPS\0\1",
    "Fujifilm RAF raw photo": b"FUJIFILMCCD-RAW 0201",
}


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("name", ["a.tif", "a.jpg", "a.mp4"])
def test_other_images_are_refused_by_name(tmp_path: Path, what: str, name: str) -> None:
    text = refused(tmp_path / name, UNREADABLE[what] + bytes(100), Reason.NOT_MEDIA)
    assert what in text
    assert text.endswith(": Haechi reads JPEG, PNG, WebP, BMP, GIF, HEIC and AVIF images; convert it to one of them")


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000"])
def test_real_images_of_other_formats(picture: Image.Image, tmp_path: Path, kind: str) -> None:
    assert kind[:4] in refused(tmp_path / "a.png", encoded(picture, kind), Reason.NOT_MEDIA)


def test_motion_jpeg_2000_is_a_video(tmp_path: Path) -> None:
    content = b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"mjp2", bytes(4), b"mjp2")
    (tmp_path / "a.jp2").write_bytes(content)
    assert not is_image(tmp_path / "a.jp2")


NEITHER = {
    "it starts like HTML": b"\xef\xbb\xbf\n<!DOCTYPE html><html>404</html>",
    "it starts like an SVG drawing": b'<?xml version="1.0"?><svg xmlns="x">',
    "it starts like XML": b"<?xml version='1.0'?><Error>",
    "it starts like JSON": b'{"error": 404}',
    "it starts like a PDF document": b"%PDF-1.7",
    "it starts like a ZIP archive or an Office document": b"PK\x03\x04abc",
    "it starts with the text 'this is no video'": b"this is no video\n",
    "it starts with the text '한국어'": "한국어".encode(),
    "it starts with the bytes 80 81 82 1b": b"\x80\x81\x82\x1b",
    "run git lfs pull": b"version https://git-lfs.github.com/spec/v1\n",
    "it starts like zero bytes": bytes(500),
}


@pytest.mark.parametrize("text", NEITHER)
def test_what_a_file_is_that_is_no_media(tmp_path: Path, text: str) -> None:
    message = refused(tmp_path / "a.jpg", NEITHER[text], Reason.NOT_MEDIA)
    assert message.startswith("neither an image nor a video of a known format (it starts ")
    assert text in message


def test_a_video_that_cannot_be_opened_is_called_one(tmp_path: Path, video: bytes) -> None:
    message = refused(tmp_path / "a.mp4", video[:100], Reason.NOT_MEDIA)
    assert message.startswith("starts like MP4 or QuickTime, but cannot be opened as a video (")


CASES = Path(__file__).parents[3].parent / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not here")
def test_odd_files_that_people_have() -> None:
    def shown(name: str) -> np.ndarray:
        return read(CASES / name, max_pixels=LIMITS.max_pixels)

    for name in ("exif-make-typed-rational.jpg", "exif-rational-minus1-0.jpg", "png-raw-profile-exif-odd.png"):
        assert shown(name).shape == (90, 60, 3)
        with Image.open(CASES / name) as opened:
            assert np.abs(shown(name).astype(int) - TURNED[6](np.asarray(opened.convert("RGB")))).max() == 0
    with Image.open(CASES / "png-grey16-trns.png") as opened:
        transparent = np.asarray(opened) == opened.info["transparency"]
    assert 0 < transparent.sum() < transparent.size
    assert ((shown("png-grey16-trns.png") == 255).all(axis=2) == transparent).all()
    if heif.IS_INSTALLED:
        assert shown("tiled.heic").shape == (512, 512, 3)
        assert (shown("tiled.heic") == shown("tiled-heic-named.jpg")).all()
        tiles = [shown("tiled.heic")[y : y + 256, x : x + 256] for y in (0, 256) for x in (0, 256)]
        assert len({tile.tobytes() for tile in tiles}) == 4
        with av.open(str(CASES / "tiled.heic")) as container:  # FFmpeg, to which each tile is a video
            packets = container.demux(list(container.streams.video))
            frames = {packet.stream_index: frame for packet in packets for frame in packet.decode()}
        assert len(frames) == 4
        for number, tile in enumerate(tiles):
            difference = np.abs(frames[number].to_ndarray(format="rgb24").astype(int) - tile)
            assert difference.max() <= 3  # the two round colours differently
