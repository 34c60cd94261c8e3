"""What the header decides for both decoders: the stream, hidden packets, the orientation, the shape of a pixel."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.bitstream
import numpy as np
import pytest

from haechi.extract.decoding import container, decode, pyav_reader
from haechi.extract.decoding.container import Header, Trait
from haechi.extract.decoding.decode import DecodedFile, sample
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.reasons import UnusableError
from haechi.extract.decoding.shared_frames import Output
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.samples import write_video
from haechi.extract.sampling import Sampling, Uniform, Windows
from haechi.extract.settings import ExtractSettings
from tests.extract.decoding.bar_code import bar_code, number_of
from tests.sinks import Kept

LIMITS = Limits.of(ExtractSettings())
SIDE, FPS = 64, 25
TRANSFORM = FrameTransform(size=SIDE, interpolation="bilinear")  # does not resize
SAMPLINGS = [Uniform(frames=10), Windows(window_seconds=0.4, stride_seconds=0.4, clip_fps=25.0)]


def read_header(path: Path) -> Header:
    return container.read_header(path, max_pixels=1 << 25, max_frames=1 << 20)


def decoded(path: Path, sampling: Sampling, transform: FrameTransform = TRANSFORM) -> tuple[DecodedFile, np.ndarray]:
    """What is known of the file, and the frames that CLIP would see."""
    kept = Kept(Output(transform=transform, num_frames=10), Output(transform=transform, num_frames=8))
    return sample(path, sampling=sampling, limits=LIMITS, sink=kept), kept.frames()


def numbered(count: int, *, first: int = 0) -> list[np.ndarray]:
    return [bar_code(first + i, side=SIDE) for i in range(count)]


def show_from(path: Path, frame: int) -> None:
    """Let the edit list of an MP4 that `write_video` made begin with this frame: those before it are hidden."""
    content = path.read_bytes()
    at = content.index(b"elst") + 4
    assert content[at : at + 8] == bytes(7) + b"\x01"  # version 0, one entry: duration, start, rate
    start = int.from_bytes(content[at + 12 : at + 16])
    ticks = int.from_bytes(content[content.index(b"mdhd") + 16 :][:4]) // FPS
    path.write_bytes(content[: at + 12] + (start + frame * ticks).to_bytes(4) + content[at + 16 :])


HIDING = {
    "h264": ("libx264", {"g": "12", "bf": "2"}),
    "hevc": ("libx265", {"x265-params": "keyint=12:open-gop=0:log-level=none"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "12"}),
}


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("codec", HIDING)
def test_frames_that_an_edit_list_hides_are_not_sampled(tmp_path: Path, codec: str, sampling: Sampling) -> None:
    encoder, options = HIDING[codec]
    path = write_video(tmp_path / "cut.mp4", numbered(40), codec=encoder, options=options)
    assert (decode.HAS_DECORD and decode.decord_reader.is_exact(read_header(path))) == decode.HAS_DECORD
    show_from(path, 17)
    header = read_header(path)
    assert header.num_shown == 23
    assert header.num_hidden == header.num_packets - 23 > 0
    found, frames = decoded(path, sampling)
    assert found.num_frames == 23
    assert found.duration_seconds == pytest.approx(23 / FPS, abs=0.005)
    assert (np.diff(found.clip_seconds) > 0).all()
    expected = 17 + np.round((found.clip_seconds - found.clip_seconds[0]) * FPS).astype(int)
    assert [number_of(frame) for frame in frames] == expected.tolist()


@pytest.mark.parametrize("delay_seconds", [0.0, 0.02, 0.5])
def test_a_late_start_does_not_shorten_the_last_frame(tmp_path: Path, delay_seconds: float) -> None:
    """An edit list that begins with an empty edit, as where the sound starts first."""
    times = [delay_seconds + i / FPS for i in range(20)]
    path = write_video(tmp_path / "late.mp4", numbered(20), times_seconds=times, options={"g": "10", "bf": "0"})
    assert read_header(path).last_frame_seconds == pytest.approx(1 / FPS)
    for sampling in SAMPLINGS:
        found, _ = decoded(path, sampling)
        assert (found.num_frames, found.duration_seconds) == (20, pytest.approx(20 / FPS, abs=1e-4))
        if isinstance(sampling, Uniform):
            assert found.window_end_seconds[0] - found.clip_seconds[0] == pytest.approx(20 / FPS, abs=1e-4)


def write_streams(
    path: Path, sizes: Sequence[int], *, default: int | None, empty: Sequence[int] = (), cover: bool = False
) -> Path:
    """Write a file with one video stream for each side; the bigger the picture, the lower its bit rate."""
    with av.open(str(path), "w") as output:
        streams: list[Any] = []
        for i, side in enumerate(sizes):
            options = {"crf": "10"} if side == min(sizes) else {"crf": "50"}
            stream: Any = output.add_stream("libx264", rate=FPS, options=options)
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            stream.disposition = av.stream.Disposition.default if i == default else av.stream.Disposition(0)
            streams.append(stream)
        if cover:
            picture: Any = output.add_stream("mjpeg", rate=FPS)
            picture.width = picture.height = 2 * max(sizes)
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            streams.append(picture)
        noise = np.random.default_rng(0)
        for number in range(20):
            for i, stream in enumerate(streams):
                if i in empty or (cover and i == len(sizes) and number):
                    continue
                shape = (stream.height, stream.width, 3)
                frame = av.VideoFrame.from_ndarray(noise.integers(0, 256, shape, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                output.mux(stream.encode(frame))
        for i, stream in enumerate(streams):
            if i not in empty:
                output.mux(stream.encode())
    return path


WITH_DEFAULT = [((64, 128), 0, 0), ((128, 64), 1, 1), ((64, 64, 64), 2, 2)]
WITHOUT = [((64, 128), None, 1), ((128, 64), None, 0), ((64, 96, 128, 80), None, 2), ((64, 64), None, 0)]


@pytest.mark.parametrize(
    ("sizes", "default", "chosen", "suffix"),
    [
        *((*case, suffix) for case in WITH_DEFAULT for suffix in (".mp4", ".mkv")),
        *((*case, ".mkv") for case in WITHOUT),  # FFmpeg marks the first stream of an MP4 if none is marked
    ],
)
def test_the_stream_is_the_one_that_ffmpeg_chooses(
    tmp_path: Path, sizes: tuple[int, ...], default: int | None, chosen: int, suffix: str
) -> None:
    path = write_streams(tmp_path / f"several{suffix}", sizes, default=default)
    with av.open(str(path)) as opened:
        is_default = [bool(s.disposition & av.stream.Disposition.default) for s in opened.streams.video]
    assert is_default == [i == default for i in range(len(sizes))]
    header = read_header(path)
    assert (header.stream_index, header.width, header.height) == (chosen, sizes[chosen], sizes[chosen])
    assert header.traits == {Trait.SEVERAL_STREAMS}
    assert not (decode.HAS_DECORD and decode.decord_reader.is_exact(header))
    for sampling in SAMPLINGS:
        found, _ = decoded(path, sampling)
        assert (found.width, found.height, found.num_frames) == (sizes[chosen], sizes[chosen], 20)
        assert found.traits == {Trait.SEVERAL_STREAMS}


def test_limits_are_for_the_stream_that_is_used(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "several.mkv", (64, 128), default=1)
    with pytest.raises(UnusableError, match="128 x 128 pixels, the limit is 10000"):
        container.read_header(path, max_pixels=10_000, max_frames=100)


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    header = read_header(write_streams(tmp_path / "film.mp4", (64,), default=0, cover=True))
    assert (header.stream_index, header.num_streams, header.width) == (0, 1, 64)
    assert not header.traits


def test_sound_with_cover_art_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as output:
        audio: Any = output.add_stream("aac", rate=44100, layout="mono")
        picture: Any = output.add_stream("mjpeg", rate=FPS)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(bar_code(1, side=64), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, FPS)
        output.mux(picture.encode(frame))
        output.mux(picture.encode())
        for start in range(0, 4096, 1024):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 44100, start, Fraction(1, 44100)
            output.mux(audio.encode(sound))
        output.mux(audio.encode())
    with pytest.raises(UnusableError, match="holds audio and a cover picture, no video stream"):
        read_header(path)


def remuxed(source: Path, target: Path, *, filter: str = "", aspect: Fraction | None = None) -> Path:
    """Copy the packets of a video, through a bitstream filter or with another shape of a pixel."""
    with av.open(str(source)) as opened, av.open(str(target), "w") as output:
        stream = opened.streams.video[0]
        copy: Any = output.add_stream_from_template(stream)
        if aspect:
            copy.sample_aspect_ratio = aspect
        passed = av.bitstream.BitStreamFilterContext(filter or "null", stream, copy)
        for packet in opened.demux(stream):
            for result in passed.filter(packet if packet.size else None):
                result.stream = copy
                output.mux(result)
    return target


def test_an_orientation_in_the_frames_themselves_is_not_decords(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mp4", numbered(30), options={"g": "12"})
    assert read_header(plain).is_turned_by_container
    turned = remuxed(plain, tmp_path / "turned.mp4", filter="h264_metadata=display_orientation=insert:rotate=90")
    header = read_header(turned)
    assert header.orientation.is_transposed
    assert not header.is_turned_by_container
    assert not (decode.HAS_DECORD and decode.decord_reader.is_exact(header))
    found, frames = decoded(turned, SAMPLINGS[0])
    assert (found.width, found.height) == (SIDE, SIDE)
    levels = frames[5].mean(axis=(1, 2))  # the stripes lie now
    assert levels.std() > 10
    assert frames[5].mean(axis=(0, 2)).std() < 5


def test_a_message_is_found_behind_longer_ones() -> None:
    message = bytes([6, 5, 255, 3]) + bytes(258) + bytes([47, 2, 1, 2, 0x80])
    assert list(container._sei_types("h264", message)) == [5, 47]
    escaped = bytes([6, 5, 4, 9, 0, 0, 3, 1, 47, 1, 7, 0x80])  # 9 0 0 1, with the byte that keeps 0 0 1 from appearing
    assert list(container._sei_types("h264", escaped)) == [5, 47]
    assert list(container._sei_types("hevc", bytes([78, 1, 47, 1, 7, 0x80]))) == [47]
    assert list(container._sei_types("h264", bytes([6, 255, 255, 3, 9]))) == [513]  # cut off
    assert list(container._sei_types("h264", b"")) == []


def write_wide(path: Path, aspect: Fraction, *, codec: str = "libx264", width: int = 96) -> Path:
    """A video with a shape of its pixels in the stream; its left half is dark."""
    frame_pixels = np.full((64, width, 3), 40, np.uint8)
    frame_pixels[:, width // 2 :] = 220
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(frame_pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("aspect", "shown"), [(Fraction(16, 11), 140), (Fraction(8, 9), 85), (Fraction(1), 96)])
def test_pixels_that_are_not_square_are_stretched(tmp_path: Path, suffix: str, aspect: Fraction, shown: int) -> None:
    path = write_wide(tmp_path / f"wide{suffix}", aspect)
    header = read_header(path)
    assert header.pixel_aspect == pytest.approx(float(aspect), rel=1e-3)
    for sampling in SAMPLINGS:
        squash = FrameTransform(size=32, interpolation="bilinear", mode="squash")
        found, frames = decoded(path, sampling, squash)
        assert (found.width, found.height) == (shown, 64)
        assert (Trait.PIXEL_ASPECT in found.traits) == (aspect != 1)
        assert frames.shape[1:] == (32, 32, 3)


def test_the_transform_stretches_in_one_step() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    smooth = np.asarray(np.repeat(np.repeat(pixels[::10, ::10], 10, 0), 10, 1))
    for in_float in (False, True):
        transform = FrameTransform(size=32, interpolation="bilinear", in_float=in_float)
        doubled = transform(np.repeat(smooth, 2, axis=1)).astype(float)
        stretched = transform(smooth, 2.0).astype(float)
        assert np.abs(stretched - doubled).mean() < 2
        stored = FrameTransform(size=32, interpolation="bilinear", in_float=in_float, pixel_aspect="stored")
        np.testing.assert_array_equal(stored(smooth, 2.0), transform(smooth))
        assert np.abs(stretched - transform(smooth).astype(float)).mean() > 10


@pytest.mark.parametrize("aspect", [Fraction(1, 11), Fraction(11, 1)])
def test_an_absurd_shape_of_a_pixel_is_taken_for_square(tmp_path: Path, aspect: Fraction) -> None:
    header = read_header(write_wide(tmp_path / "absurd.mkv", aspect))
    assert header.pixel_aspect == 1
    assert not header.traits


def test_a_turned_video_has_turned_pixels(tmp_path: Path) -> None:
    path = write_wide(tmp_path / "turned.mp4", Fraction(2))
    content = path.read_bytes()
    identity = b"".join(n.to_bytes(4, signed=True) for n in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    quarter = b"".join(n.to_bytes(4, signed=True) for n in (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30))
    at = content.index(identity, content.index(b"tkhd"))
    path.write_bytes(content[:at] + quarter + content[at + len(identity) :])
    header = read_header(path)
    assert header.orientation.is_transposed
    assert header.pixel_aspect == 0.5
    for sampling in SAMPLINGS:
        found, _ = decoded(path, sampling)
        assert found.width / found.height == pytest.approx(1 / 3, rel=0.02)


def test_transparency_and_hdr_are_noted(tmp_path: Path) -> None:
    alpha = tmp_path / "alpha.mov"
    with av.open(str(alpha), "w") as output:
        stream: Any = output.add_stream("qtrle", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "argb"
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 4), 99, np.uint8), format="argb")
        frame.pts, frame.time_base = 0, Fraction(1, FPS)
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    assert read_header(alpha).traits == {Trait.ALPHA}
    hdr = write_video(tmp_path / "hdr.mkv", numbered(3), options={"x264-params": "transfer=smpte2084"})
    assert read_header(hdr).traits == {Trait.HDR}


PACKET_BYTES = 188  # of an MPEG transport stream


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("libx264", {"g": "20", "bf": "2"}),
        ("libx264", {"x264-params": "open-gop=1:keyint=20:bframes=3"}),
        ("libx265", {"x265-params": "keyint=20:open-gop=1:log-level=none"}),
        ("mpeg2video", {"g": "20", "bf": "2"}),
        ("mpeg1video", {"g": "20", "bf": "2"}),
        ("mpeg4", {"g": "20", "bf": "2"}),
    ],
)
def test_a_recording_that_begins_within_a_group_is_used_from_its_first_key_frame_on(
    tmp_path: Path, encoder: str, options: dict[str, str], sampling: Sampling
) -> None:
    whole = write_video(tmp_path / "whole.ts", numbered(50), codec=encoder, options=options)
    content = whole.read_bytes()
    numbers: list[list[int]] = []
    for share in (0.15, 0.3):
        at = int(len(content) * share) // PACKET_BYTES * PACKET_BYTES
        path = tmp_path / "cut.ts"
        path.write_bytes(content[at:])
        found, frames = decoded(path, sampling)
        assert found.traits == {Trait.STARTS_MID_GOP}
        assert (np.diff(found.clip_seconds) > 0).all()
        expected = 50 - found.num_frames + np.round((found.clip_seconds - found.clip_seconds[0]) * FPS).astype(int)
        numbers.append([number_of(frame) for frame in frames])
        assert numbers[-1] == expected.tolist()
    assert not read_header(whole).traits


def test_damage_after_the_first_key_frame_still_counts(tmp_path: Path) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (60, SIDE, SIDE, 3), dtype=np.uint8))
    whole = write_video(tmp_path / "whole.ts", frames, options={"g": "20", "bf": "2"})
    content = bytearray(whole.read_bytes())
    at = len(content) * 6 // 10 // PACKET_BYTES * PACKET_BYTES
    content[at + 60 : at + 180] = np.random.default_rng(1).bytes(120)
    start = len(content) * 2 // 10 // PACKET_BYTES * PACKET_BYTES
    cut = tmp_path / "cut.ts"
    cut.write_bytes(content[start:])
    header = read_header(cut)
    assert header.traits == {Trait.STARTS_MID_GOP}
    with pytest.raises(UnusableError, match=r"damage|corrupt"):
        pyav_reader.read(cut, header, 4, lambda position, frame: None)
