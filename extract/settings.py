"""Every choice of stage 1, checked once. The command line takes its defaults from here."""

from dataclasses import dataclass

from haechi.cache.errors import HaechiError
from haechi.cache.schema import STORE_TYPES
from haechi.cache.text import bullet_list
from haechi.extract.sampling import SAMPLINGS, UNIFORM, WINDOWS, Sampling, Uniform, Windows

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SLOWFAST_MODELS = ("slowfast_r50", "slowfast_r101")

# Of `windows`.
WINDOW_SECONDS = 2.0
CLIP_FPS = 2.0
RANGES = {"window_seconds": (0.1, 3600.0), "stride_seconds": (0.01, 3600.0), "clip_fps": (1e-3, 60.0)}
MAX_OVERLAP = 16


class SettingsError(HaechiError):
    """Settings that cannot be used; the text names all of them."""


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """What to compute and how. Raises `SettingsError` that lists every value out of range."""

    sampling: str = UNIFORM
    """`uniform`: so many frames over the whole video. `windows`: all of it, for videos of any length."""
    frames: int = 32
    """Frames sampled from each video by `uniform`: what CLIP sees. 32 is the report's number."""
    window_seconds: float | None = None
    """What SlowFast sees at once with `windows`; None: 2. It was trained on 64 frames at 30 a second (pytorchvideo's
    tutorial), 2.1 s."""
    stride_seconds: float | None = None
    """From the start of a window to that of the next; None: a window's length."""
    clip_fps: float | None = None
    """Frames a second that CLIP sees with `windows`; None: 2."""
    clip_model: str = "ViT-B-32"
    """A model name of open_clip, or `local-dir:PATH` of a folder with an open_clip_config.json."""
    clip_weights: str = "openai"
    """A pretrained tag of open_clip, a local file (`TAG=PATH`, or a bare path), or `random:SEED`."""
    slowfast_model: str = "slowfast_r50"
    slowfast_weights: str = "kinetics400"
    """`kinetics400`, a local file, or `random:SEED`."""
    store: str = "float16"
    """Storage type of the features in the cache."""
    shard_size: int = 256
    """Manifest rows a shard, at most."""
    shard_minutes: float = 10.0
    """A shard that is not full is written after so long: a run that is killed loses so much, and the videos in work."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    precision: str = "auto"
    """Arithmetic of the backbones; `fp32` is the reference."""
    workers: int = 0
    """Decoding processes; 0 chooses by the machine."""
    batch_frames: int = 0
    """Frames a CLIP batch; 0 chooses by the device."""
    batch_windows: int = 0
    """Windows a SlowFast batch; 0 chooses by the device."""
    timeout_seconds: float = 120.0
    """How long a video may take to check, decode and resize before its worker is killed: so long, and as much again for
    each minute of it."""
    worker_memory_gb: float = 4.0
    """Memory of a decoding process, 1e9 bytes. H.264 of 7680 x 4320 was seen to need 1.6."""
    max_pixels: int = 7680 * 4320
    """Largest width x height accepted, read from the header before any frame is decoded: 8K."""
    max_frames: int = 24 * 3600 * 60
    """Most frames accepted, likewise: a day at 60 a second."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)}, must be {least} to {most}"
            for name, (least, most) in {
                "frames": (1, 4096),
                "shard_size": (1, 1 << 20),
                "workers": (0, 256),
                "batch_frames": (0, 1 << 20),
                "batch_windows": (0, 1 << 20),
                "max_pixels": (1, 1 << 40),
                "max_frames": (1, 1 << 40),
                "worker_memory_gb": (0.5, 1e6),
                "shard_minutes": (0.01, 1e6),
            }.items()
            if not least <= getattr(self, name) <= most
        ]
        if not self.timeout_seconds > 0:
            problems.append(f"timeout_seconds is {self.timeout_seconds}, must be above 0")
        problems += self._sampling_problems()
        for name, allowed in {
            "sampling": SAMPLINGS,
            "store": STORE_TYPES,
            "precision": PRECISIONS,
            "slowfast_model": SLOWFAST_MODELS,
        }.items():
            if getattr(self, name) not in allowed:
                problems.append(f"{name} is {getattr(self, name)!r}, must be one of {', '.join(allowed)}")
        if problems:
            raise SettingsError(f"these settings cannot be used:\n{bullet_list(problems)}")

    @property
    def sampler(self) -> Sampling:
        """The sampling with all that belongs to it."""
        if self.sampling == UNIFORM:
            return Uniform(frames=self.frames)
        window = WINDOW_SECONDS if self.window_seconds is None else self.window_seconds
        return Windows(
            window_seconds=float(window),
            stride_seconds=float(window if self.stride_seconds is None else self.stride_seconds),
            clip_fps=float(CLIP_FPS if self.clip_fps is None else self.clip_fps),
        )

    def _sampling_problems(self) -> list[str]:
        of_windows = {name: getattr(self, name) for name in ("window_seconds", "stride_seconds", "clip_fps")}
        if self.sampling == UNIFORM:
            return [
                f"{name} is {value}, but is for --sampling {WINDOWS}"
                for name, value in of_windows.items()
                if value is not None
            ]
        if self.sampling != WINDOWS:
            return []  # said elsewhere
        problems = [
            f"{name} is {value}, must be {RANGES[name][0]:g} to {RANGES[name][1]:g}"
            for name, value in of_windows.items()
            if value is not None and not RANGES[name][0] <= value <= RANGES[name][1]
        ]
        if problems:
            return problems
        chosen = self.sampler
        assert isinstance(chosen, Windows)
        if self.frames != ExtractSettings.frames:
            problems.append(f"frames is {self.frames}, but is for --sampling {UNIFORM}; say --clip-fps")
        if not chosen.window_seconds / MAX_OVERLAP <= chosen.stride_seconds <= chosen.window_seconds:
            problems.append(
                f"stride_seconds is {chosen.stride_seconds:g}, must be {chosen.window_seconds / MAX_OVERLAP:g} to "
                f"{chosen.window_seconds:g}, a window's length: no moment may be left out, none seen more than "
                f"{MAX_OVERLAP} times"
            )
        if chosen.window_seconds * chosen.clip_fps < 1:
            problems.append(
                f"clip_fps is {chosen.clip_fps:g}, must be {1 / chosen.window_seconds:g} or more: a frame a window"
            )
        return problems
