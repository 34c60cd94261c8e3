"""Every choice of stage 1, checked once. The command line takes its defaults from here."""

from dataclasses import dataclass

from cache.errors import HaechiError, bullet_list
from cache.schema import STORE_TYPES

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SLOWFAST_MODELS = ("slowfast_r50", "slowfast_r101")


class SettingsError(HaechiError):
    """Settings that cannot be used; the text names all of them."""


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """What to compute and how. Raises `SettingsError` that lists every value out of range."""

    frames: int = 32
    """Frames sampled from each video: what CLIP sees. 32 is the report's number."""
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
    """A shard that is not full is written after so long: a run that is killed loses no more."""
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
        for name, allowed in {
            "store": STORE_TYPES,
            "precision": PRECISIONS,
            "slowfast_model": SLOWFAST_MODELS,
        }.items():
            if getattr(self, name) not in allowed:
                problems.append(f"{name} is {getattr(self, name)!r}, must be one of {', '.join(allowed)}")
        if problems:
            raise SettingsError(f"these settings cannot be used:\n{bullet_list(problems)}")
