"""All settings of stage 1. The command line takes its defaults from here."""

from dataclasses import dataclass, replace
from typing import Any

from haechi.cache.errors import SettingsError
from haechi.cache.rules import DEVICE, NAME, Number, OneOf, Optional, Whole, broken_rules, setting, unknown_fields
from haechi.cache.schema import FRAME_STREAM, NO_MODEL, STORE_TYPES, WINDOW_STREAM
from haechi.extract.backbones.catalog import MOTION_CHOICES
from haechi.extract.pixel_aspect import DISPLAY, PIXEL_ASPECTS
from haechi.extract.sampling import SAMPLINGS, UNIFORM, WINDOWS, Sampling, Uniform, Windows

PRECISIONS = ("auto", "fp32", "bf16", "fp16")

# Defaults and limit of `windows` sampling.
WINDOW_SECONDS = 2.0
CLIP_FPS = 2.0
MAX_OVERLAP = 16

# Sampling -> the fields that are for it alone; a cache's settings use the same names.
SAMPLING_FIELDS = {UNIFORM: ("frames",), WINDOWS: ("window_seconds", "stride_seconds", "clip_fps")}


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """What to compute and how. Raises `SettingsError` that lists every value out of range."""

    sampling: str = setting(UNIFORM, OneOf(SAMPLINGS))
    """`uniform`: `frames` frames over the whole video. `windows`: the whole video in windows, of any length."""
    frames: int = setting(32, Whole(1, 4096))
    """`uniform`: number of frames that CLIP sees of each video. 32 is the number in the report."""
    window_seconds: float | None = setting(None, Optional(Number(least=0.1, most=3600), f"{WINDOW_SECONDS:g}"))
    """`windows`: length of a SlowFast window; None: 2. SlowFast was trained on 64 frames at 30 frames/s, which is 2.1 s
    (pytorchvideo's tutorial)."""
    stride_seconds: float | None = setting(None, Optional(Number(least=0.01, most=3600), "a window's length"))
    """`windows`: from the start of a window to the start of the next; None: a window's length."""
    clip_fps: float | None = setting(None, Optional(Number(least=0.001, most=60), f"{CLIP_FPS:g}"))
    """`windows`: CLIP frames per second; None: 2."""
    clip_model: str = setting("ViT-B-32", NAME)
    """A model name of open_clip, or `local-dir:PATH` of a folder with an open_clip_config.json; `none`: SlowFast alone,
    without CLIP."""
    clip_weights: str = setting("openai", NAME)
    """A pretrained tag of open_clip, a local file (`TAG=PATH`, or only the path), or `random:SEED`."""
    slowfast_model: str = setting("slowfast_r50", OneOf(MOTION_CHOICES))
    """`none`: CLIP alone, without SlowFast."""
    slowfast_weights: str = setting("kinetics400", NAME)
    """`kinetics400`, a local file, or `random:SEED`."""
    pixel_aspect: str = setting(DISPLAY, OneOf(PIXEL_ASPECTS))
    """What is done about pixels that are not square. `display`: they are stretched to their shape on a screen.
    `stored`: they are taken for square; a cache of an older version is continued that way."""
    store: str = setting("float16", OneOf(STORE_TYPES))
    """Storage type of the features in the cache."""
    shard_size: int = setting(256, Whole(1, 1 << 20))
    """Largest number of manifest rows in a shard."""
    shard_minutes: float = setting(10.0, Number(least=0.01, most=1e6))
    """A shard that is not full is written after this time. A run that is killed loses at most the rows of this time."""
    device: str = setting("auto", DEVICE)
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    precision: str = setting("auto", OneOf(PRECISIONS))
    """Precision of the backbones; `fp32` is the reference."""
    workers: int = setting(0, Whole(0, 256))
    """Number of decoding processes; 0: chosen for the machine."""
    batch_frames: int = setting(0, Whole(0, 1 << 20))
    """Frames in a CLIP batch; 0: chosen for the device."""
    batch_windows: int = setting(0, Whole(0, 1 << 20))
    """Windows in a SlowFast batch; 0: chosen for the device."""
    timeout_seconds: float = setting(120.0, Number(above=0))
    """Time limit for checking, decoding and resizing a video: this many seconds, plus the same for each minute of
    video. After that its worker is killed."""
    worker_memory_gb: float = setting(4.0, Number(least=0.5, most=1e6))
    """Memory limit of a decoding process, 1e9 bytes. H.264 of 7680 x 4320 pixels was measured to need 1.6."""
    spool: str | None = setting(None, Optional(NAME, "the system's folder for temporary files"))
    """Folder for the local copies of files that are fetched from stores."""
    spool_gb: float = setting(10.0, Number(least=0.001, most=1e6))
    """What these copies may use together, 1e9 bytes; less if the disk has less."""
    max_pixels: int = setting(7680 * 4320, Whole(1, 1 << 40))
    """Largest width x height that is accepted (8K), checked in the header before any frame is decoded."""
    max_frames: int = setting(24 * 3600 * 60, Whole(1, 1 << 40))
    """Largest number of frames that is accepted (a day at 60 frames/s), checked in the header too."""

    def __post_init__(self) -> None:
        broken = broken_rules(self)
        is_sampling_broken = not broken.keys().isdisjoint({"sampling"}.union(*SAMPLING_FIELDS.values()))
        problems = [*broken.values(), *([] if is_sampling_broken else self._conflicts()), *self._model_conflicts()]
        if problems:
            raise SettingsError(problems)

    def changed(self, **changes: Any) -> "ExtractSettings":
        """The same settings with some fields changed. Raises `SettingsError` for unknown names and values too."""
        if problems := unknown_fields(ExtractSettings, changes):
            raise SettingsError(problems)
        return replace(self, **changes)

    @property
    def models(self) -> dict[str, str]:
        """Stream of the cache -> the model that writes it."""
        return {FRAME_STREAM: self.clip_model, WINDOW_STREAM: self.slowfast_model}

    @property
    def weights(self) -> dict[str, str]:
        """Stream of the cache -> the weights of its model, as asked for; `none` without a model."""
        asked = {FRAME_STREAM: self.clip_weights, WINDOW_STREAM: self.slowfast_weights}
        return {stream: asked[stream] if stream in self.streams else NO_MODEL for stream in asked}

    @property
    def streams(self) -> list[str]:
        """The streams of the cache that have a model, one or both."""
        return [stream for stream, model in self.models.items() if model != NO_MODEL]

    @property
    def sampler(self) -> Sampling:
        """The chosen sampling with its parameters."""
        if self.sampling == UNIFORM:
            return Uniform(frames=self.frames)
        assert self.sampling == WINDOWS, f"no sampler for {self.sampling}"
        window = WINDOW_SECONDS if self.window_seconds is None else self.window_seconds
        return Windows(
            window_seconds=float(window),
            stride_seconds=float(window if self.stride_seconds is None else self.stride_seconds),
            clip_fps=float(CLIP_FPS if self.clip_fps is None else self.clip_fps),
        )

    def _model_conflicts(self) -> list[str]:
        """No model at all, and weights for a model that is left out."""
        if not self.streams:
            return [f"clip_model and slowfast_model are both {NO_MODEL!r}: nothing is left to extract"]
        return [
            f"{stream}_weights is {given!r}, but {stream}_model is {NO_MODEL!r}"
            for stream in self.models.keys() - self.streams
            if (given := getattr(self, f"{stream}_weights")) != getattr(ExtractSettings, f"{stream}_weights")
        ]

    def _conflicts(self) -> list[str]:
        """The fields of the sampling that contradict each other."""
        for_windows = {name: getattr(self, name) for name in SAMPLING_FIELDS[WINDOWS]}
        chosen = self.sampler
        if not isinstance(chosen, Windows):
            return [
                f"{name} is {value}, but is for --sampling {WINDOWS}"
                for name, value in for_windows.items()
                if value is not None
            ]
        problems = []
        if self.frames != ExtractSettings.frames:
            problems.append(f"frames is {self.frames}, but is for --sampling {UNIFORM}; use --clip-fps")
        if not chosen.window_seconds / MAX_OVERLAP <= chosen.stride_seconds <= chosen.window_seconds:
            problems.append(
                f"stride_seconds is {chosen.stride_seconds:g}, expected {chosen.window_seconds / MAX_OVERLAP:g} to "
                f"{chosen.window_seconds:g}, a window's length: windows must leave no gap, and no moment may be in "
                f"more than {MAX_OVERLAP} of them"
            )
        if chosen.window_seconds * chosen.clip_fps < 1:
            problems.append(
                f"clip_fps is {chosen.clip_fps:g}, expected at least {1 / chosen.window_seconds:g}: one frame in each "
                "window"
            )
        return problems
