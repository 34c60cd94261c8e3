"""Frames that are identical to the one before are computed once, with the same features to the last bit."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.networks import SIDE
from haechi.extract.backbones import batch_queue
from haechi.extract.backbones.batch_queue import BatchQueue, Key
from haechi.extract.backbones.device import Compute
from haechi.extract.backbones.openclip import OpenClip
from haechi.extract.backbones.pair import Backbones
from haechi.extract.backbones.repeats import Repeats
from haechi.extract.backbones.waiting import MOST_BATCHES
from haechi.extract.settings import ExtractSettings

Piece = tuple[Key, list[np.ndarray]]


def picture(number: int, side: int, dtype: type) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3)).astype(dtype)


def piece(video: int, numbers: list[int], window: list[int], *, sides: tuple[int, int] = (SIDE, SIDE)) -> Piece:
    """A piece with these pictures as frames, and as the frames of its window; a window of one picture is still."""
    frames = np.array([picture(number, sides[0], np.uint8) for number in numbers])
    shown = [window[i * len(window) // 32] for i in range(32)] if window else []
    pictures = {number: picture(number, sides[1], np.float16) for number in set(shown)}
    stack = (
        np.array([pictures[number] for number in shown]) if shown else np.empty((0, sides[1], sides[1], 3), np.float16)
    )
    return (video, 0), [frames, stack]


def stills_and_others(*, seed: int, num_pieces: int, num_frames: int) -> Iterator[Piece]:
    """Pieces of three videos that are decoded at a time: runs of equal pictures, images, pieces without a window."""
    rng = np.random.default_rng(seed)
    shown = [0, 1000, 2000]
    for _ in range(num_pieces):
        video = int(rng.integers(3))
        count = int(rng.choice([1, num_frames - 1, num_frames], p=[0.2, 0.2, 0.6]))
        numbers = []
        for _ in range(count):
            shown[video] += int(rng.random() < 0.3)
            numbers.append(shown[video])
        windows = [[], [shown[video]], [shown[video], shown[video] + 1]]
        yield piece(video, numbers, windows[rng.choice(3, p=[0.2, 0.6, 0.2])])


def computed(
    backbones: Backbones, pieces: list[Piece], *, once: bool, num_running: int = 0
) -> tuple[list[tuple[Key, dict[str, np.ndarray]]], dict[str, int], list[int]]:
    """The features of all pieces, how many frames were saved, and the number of frames in each call of a network."""
    calls: list[int] = []
    start = backbones._forward

    def forward(stream: str, frames: torch.Tensor, progress: object) -> dict[str, torch.Tensor]:
        calls.extend(len(part) for part in torch.split(frames, backbones.batch_size(stream)) if len(part))
        return start(stream, frames, progress)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbones, "computes_repeats_once", once)
        patch.setattr(backbones, "_forward", forward)
        queue = BatchQueue(backbones, num_running=num_running)
        finished = [each for key, frames in pieces for each in queue.add(key, frames)] + queue.drain()
        assert queue.drain() == []
    return finished, queue.num_saved, calls


def assert_same_bits(
    found: list[tuple[Key, dict[str, np.ndarray]]], expected: list[tuple[Key, dict[str, np.ndarray]]]
) -> None:
    assert [key for key, _ in found] == [key for key, _ in expected]
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


@pytest.mark.parametrize("batch_frames", [3, 4, 8, 16, 64])
@pytest.mark.parametrize("num_running", [0, 2])
@pytest.mark.parametrize("models", [{}, {"slowfast_model": "none", "slowfast_weights": "kinetics400"}])
def test_any_pieces_have_the_same_features(
    tiny_settings: ExtractSettings, batch_frames: int, num_running: int, models: dict[str, str]
) -> None:
    settings = replace(tiny_settings, batch_frames=batch_frames, batch_windows=2, **models)  # type: ignore[arg-type]
    backbones = Backbones(settings, Compute.choose(settings))
    for seed in range(3):
        pieces = list(stills_and_others(seed=seed, num_pieces=40, num_frames=settings.frames))
        expected, nothing, all_calls = computed(backbones, pieces, once=False)
        assert nothing == {"clip": 0, "slowfast": 0}
        found, saved, calls = computed(backbones, pieces, once=True, num_running=num_running)
        assert_same_bits(found, expected)
        assert set(calls) <= set(all_calls)
        assert sum(saved.values()) == sum(all_calls) - sum(calls)
        assert min(saved.values()) >= 0
        assert saved["clip"] > 30 or batch_frames > 16


def test_without_repeats_the_networks_are_called_as_always(tiny_settings: ExtractSettings) -> None:
    backbones = Backbones(tiny_settings, Compute.choose(tiny_settings))
    pieces = [piece(i, [8 * i + j for j in range(8)], [i, i + 1]) for i in range(5)]
    expected, _, all_calls = computed(backbones, pieces, once=False)
    found, saved, calls = computed(backbones, pieces, once=True)
    assert_same_bits(found, expected)
    assert (saved, calls) == ({"clip": 0, "slowfast": 0}, all_calls)


def test_stills_share_a_batch(tiny_settings: ExtractSettings) -> None:
    """Eight stills of eight frames are computed as eight frames, and do not wait for more than a batch."""
    backbones = Backbones(tiny_settings, Compute.choose(tiny_settings))
    pieces = [piece(i, [i] * 8, [i, i + 1]) for i in range(9)]
    _, saved, calls = computed(backbones, pieces, once=True)
    assert saved == {"clip": 56, "slowfast": 0}
    assert calls.count(8) == 2


@pytest.mark.parametrize("shown", [[1] * 8, [1, 1, 2, 2, 3, 3, 4, 4]])
def test_a_single_video_is_not_computed_twice(
    tiny_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch, shown: list[int]
) -> None:
    """To try the network and to fill up a batch with copies would cost more than the repeats save."""
    honest, numbers = OpenClip.forward, []

    def forward(self: OpenClip, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        numbers.append(len(frames))
        return honest(self, frames)

    monkeypatch.setattr(OpenClip, "forward", forward)
    backbones = Backbones(tiny_settings, Compute.choose(tiny_settings))
    numbers.clear()  # a frame was computed to find the width
    computed(backbones, [piece(0, shown, [1, 2])], once=True)
    assert numbers == [8]


def test_the_real_networks_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-B-32 and slowfast_r50 in float32: a slide show of two slides in windows, and a still between two videos."""
    monkeypatch.setattr(batch_queue, "REPEATS_BEFORE", 0)
    settings = ExtractSettings(
        clip_weights="random:0", slowfast_weights="random:0", device="cpu", precision="fp32", frames=4, batch_windows=2
    )
    backbones = Backbones(settings, Compute.choose(settings))
    sides = (224, 256)
    pieces = [
        piece(0, [1, 1, 1, 1], [1], sides=sides),
        piece(0, [1, 1, 1, 1], [1], sides=sides),
        piece(1, [5, 6, 7, 8], [5, 6], sides=sides),
        piece(0, [1, 1, 1, 2], [1], sides=sides),
    ]
    expected, _, all_calls = computed(backbones, pieces, once=False)
    found, saved, calls = computed(backbones, pieces, once=True)
    assert_same_bits(found, expected)
    assert saved == {"clip": 8, "slowfast": 2}
    assert (sum(all_calls), sum(calls)) == (20, 10)


def test_an_attempt_and_a_video_that_ended_are_forgotten() -> None:
    repeats, (_, (frames, _)) = Repeats(), piece(0, [1, 1], [])
    first = repeats.find(0, 0, "clip", frames)
    assert first[0] is first[1]
    again = repeats.find(0, 0, "clip", frames)
    assert again[0] is first[0]
    second_attempt = repeats.find(0, 1, "clip", frames)
    assert second_attempt[0] is not first[0]
    repeats.forget(0)
    assert repeats.find(0, 1, "clip", frames)[0] is not second_attempt[0]
    assert repeats.find(1, 0, "clip", frames)[0] is not second_attempt[0]


def test_a_difference_of_one_bit_is_no_repeat() -> None:
    _, (frames, window) = piece(0, [1, 1, 1], [1])
    frames[1, 0, 0, 0] ^= 1
    found = Repeats().find(0, 0, "clip", frames)
    assert len({id(each) for each in found}) == 3
    moving = window.copy()
    moving[31, -1, -1, 2] += 0.125
    found = [*Repeats().find(0, 0, "slowfast", np.array([window, moving, moving, window, window]))]
    assert [found.index(each) for each in found] == [0, 1, 2, 3, 3]


def test_what_is_kept_does_not_change_with_the_memory_of_the_frames() -> None:
    repeats, (_, (frames, _)) = Repeats(), piece(0, [1], [])
    first = repeats.find(0, 0, "clip", frames)
    frames[:] = picture(2, SIDE, np.uint8)
    assert repeats.find(0, 0, "clip", frames)[0] is not first[0]


def test_where_bits_depend_on_the_place_all_frames_are_computed(
    tiny_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of MKL's matrix products do for some numbers of rows and threads."""
    honest = OpenClip.forward

    def forward(self: OpenClip, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        features = honest(self, frames)["features"].clone()
        if len(frames) % 4:
            features[-1] += 1e-6
        return {"features": features}

    monkeypatch.setattr(OpenClip, "forward", forward)
    for count, expected_saved in ((7, 0), (8, 40)):
        pieces = [piece(i, [i] * count, [i, i + 1]) for i in range(7)]
        settings = replace(tiny_settings, batch_frames=count, frames=count)
        backbones = Backbones(settings, Compute.choose(settings))
        expected, _, _ = computed(backbones, pieces, once=False)
        found, saved, _ = computed(backbones, pieces, once=True)
        assert_same_bits(found, expected)
        assert saved["clip"] == expected_saved


def test_nothing_waits_for_more_than_some_batches(tiny_settings: ExtractSettings) -> None:
    """A piece whose frames would wait for more of the same number is returned, and so are those after it."""
    settings = replace(tiny_settings, batch_frames=64, batch_windows=1)
    backbones = Backbones(settings, Compute.choose(settings))
    queue = BatchQueue(backbones)
    returned = []
    still = piece(0, [1] * 7, [1, 2])
    for i in range(120):
        key, frames = still if i == 0 else piece(i, list(range(i * 100, i * 100 + 8)), [i, i + 1])
        returned.append(len(queue.add(key, frames)))
    in_a_batch = 64 // 8
    assert next(i for i, number in enumerate(returned) if number) <= in_a_batch * (MOST_BATCHES + 2)
    assert sum(returned) >= 120 - in_a_batch
    assert sum(returned) + len(queue.drain()) == 120
