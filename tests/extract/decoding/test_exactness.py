"""Every sampled frame is the requested one, whatever way the stream was encoded.

Each frame shows its own number as a bar code, which reveals a decoder that seeks to a wrong frame.
"""

from pathlib import Path

import av.codec
import numpy as np
import pytest

from haechi.extract.decoding import container, decode
from haechi.extract.decoding.decode import sample
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.shared_frames import Output
from haechi.extract.decoding.transforms import FrameTransform
from haechi.extract.samples import write_video
from haechi.extract.sampling import Uniform, uniform
from haechi.extract.settings import ExtractSettings
from tests.extract.decoding.bar_code import SIDE, bar_code, number_of
from tests.sinks import Kept

LIMITS = Limits.of(ExtractSettings())
NUM_FRAMES, NUM_SAMPLES, FPS = 200, 32, 25
TRANSFORM = FrameTransform(size=SIDE, interpolation="bilinear")  # does not resize


# name -> codec, encoder options, whether decord is exact for it
STREAMS: dict[str, tuple[str, dict[str, str], bool]] = {
    "default.mp4": ("libx264", {}, True),
    "short-gop.mp4": ("libx264", {"g": "12"}, True),
    "no-b-frames.mp4": ("libx264", {"g": "12", "bf": "0"}, True),
    "open-gop.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=25:bframes=3"}, False),
    "open-gop.mkv": ("libx264", {"x264-params": "open-gop=1:keyint=25:bframes=3"}, False),
    "intra-refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=40"}, False),
    "intra-refresh.mkv": ("libx264", {"x264-params": "intra-refresh=1:keyint=40"}, False),
    "b-frames.avi": ("libx264", {"bf": "2"}, False),
    "b-frames.ts": ("libx264", {"bf": "2", "g": "25"}, False),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=50:open-gop=1:log-level=none"}, False),
    "hevc.mkv": ("libx265", {"x265-params": "keyint=50:open-gop=1:log-level=none"}, False),
    "hevc-closed.mp4": ("libx265", {"x265-params": "keyint=50:open-gop=0:log-level=none"}, True),
    "mpeg2.ts": ("mpeg2video", {"bf": "2", "g": "12"}, False),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2", "g": "12"}, False),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}, False),
    "mpeg4.mp4": ("mpeg4", {"bf": "2"}, False),
    "wmv.wmv": ("wmv2", {}, False),
    "flv.flv": ("flv", {}, False),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "40"}, False),
    "vp9.mp4": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "40"}, True),
}


def has_encoder(name: str) -> bool:
    try:
        return bool(av.codec.Codec(name, "w"))
    except av.codec.codec.UnknownCodecError:
        return False


@pytest.mark.parametrize("name", STREAMS)
def test_every_sampled_frame_is_the_one_asked_for(tmp_path: Path, name: str) -> None:
    codec, options, decord_is_exact = STREAMS[name]
    if not has_encoder(codec):
        pytest.skip(f"this PyAV has no encoder {codec}")
    frames = [bar_code(number) for number in range(NUM_FRAMES)]
    path = write_video(tmp_path / name, frames, fps=FPS, codec=codec, options=options)
    if decode.HAS_DECORD:
        header = container.read_header(path, max_pixels=1 << 25, max_frames=1 << 20)
        assert decode.decord_reader.is_exact(header) == decord_is_exact

    kept = Kept(Output(transform=TRANSFORM, num_frames=NUM_SAMPLES))
    found = sample(path, sampling=Uniform(frames=NUM_SAMPLES), limits=LIMITS, sink=kept)
    expected = uniform(NUM_FRAMES, NUM_SAMPLES)
    assert [number_of(frame) for frame in kept.frames()] == expected
    assert found.num_frames == NUM_FRAMES
    shown = found.clip_seconds - found.clip_seconds[0]
    np.testing.assert_allclose(shown, np.array(expected) / FPS, atol=2e-3)
    assert found.duration_seconds == pytest.approx(NUM_FRAMES / FPS, abs=0.05)


def test_bar_codes_can_be_read() -> None:
    assert [number_of(bar_code(number)) for number in (0, 1, 77, 255)] == [0, 1, 77, 255]
