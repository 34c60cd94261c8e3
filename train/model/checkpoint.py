"""model.pt: a trained head that describes itself."""

import io
import math
import pickle
import struct
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from haechi.cache import schema
from haechi.cache.errors import SettingsError
from haechi.cache.reader import Cache
from haechi.cache.text import bullet_list
from haechi.train.data.dataset import stream_names
from haechi.train.errors import TrainError
from haechi.train.evaluate.calibration import Calibration
from haechi.train.model.head import Head
from haechi.train.run_folder import current
from haechi.train.settings import TrainSettings
from haechi.train.untrained import seen_by_head

FORMAT = "haechi-model"
FORMAT_VERSION = 2

# What zipfile and torch.load raise for files that they cannot read: found by trying damaged files.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)

# Fields of the file and their types.
FIELDS = {
    "model_state_dict": dict,
    "best_threshold": float,
    "best_epoch": int,
    "settings": dict,
    "streams": dict,
    "fingerprint": str,
    "untrained": list,
    "features": dict,
    "calibration": dict,
    "longest_seconds": float,
    "metrics": dict,
}

# Fields that are objects in `Checkpoint` and plain values in the file.
OBJECTS = {"model_state_dict", "settings", "calibration"}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that is needed to score new videos as in the training run."""

    head: Head
    """In evaluation mode."""
    best_threshold: float
    """A video is harmful if its score is at least this."""
    best_epoch: int
    settings: TrainSettings
    streams: dict[str, int]
    """Arrays of the cache that the head sees -> their widths, in the order in which they are joined."""
    fingerprint: str
    """The fingerprint of the cache: the head cannot be used on features with another one."""
    untrained: list[str]
    """Backbones with random weights whose features the head sees."""
    features: dict[str, Any]
    """How to compute such features: `settings` (which the fingerprint hashes), `clip_weights` and `slowfast_weights`
    (as they were requested)."""
    calibration: Calibration
    """Converts a score to a probability."""
    longest_seconds: float
    """Duration of the longest training video; infinite if the file does not have it."""
    metrics: dict[str, Any]
    """Part of the split -> figures of `metrics_at` at the best threshold."""

    def save(self, path: Path) -> None:
        """Write the file. After an `OSError` (such as a full disk) it may be incomplete: write it in a `run_folder`."""
        buffer = io.BytesIO()  # when torch itself writes to a disk and fails, its error lacks the reason
        state = {name: value.cpu() for name, value in self.head.state_dict().items()}
        values = {name: getattr(self, name) for name in FIELDS if name not in OBJECTS}
        torch.save(
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "model_state_dict": state,
                "settings": self.settings.to_dict(),
                "calibration": asdict(self.calibration),
                **values,
            },
            buffer,
        )
        path.write_bytes(buffer.getvalue())


def feature_recipe(cache: Cache) -> dict[str, Any]:
    """`Checkpoint.features` for heads that are trained on this cache."""
    provenance = cache.shards[0].provenance
    return {
        "settings": provenance.settings,
        **{f"{stream}_weights": request for stream, request in provenance.weights.items()},
    }


def load(path: Path) -> Checkpoint:
    """Read a model.pt, with its head on the CPU. The file may come from an untrusted source: no code in it is run.

    Raises `TrainError` if the file is missing, is not a model.pt, is damaged, or has another version.
    """
    try:
        file = current(path)
        with zipfile.ZipFile(file) as archive:  # torch does not verify checksums
            if (damaged := archive.testzip()) is not None:
                raise TrainError(f"{path}: damaged: the checksum of {damaged!r} in it does not match")
        data = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainError(f"{path}: no such file; `haechi train CACHE --out RUN` writes RUN/model.pt") from error
    except UNREADABLE as error:
        raise TrainError(f"{path}: not a model.pt of Haechi, or damaged") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise TrainError(f"{path}: not a model.pt of Haechi")
    if data.get("format_version") != FORMAT_VERSION:
        raise TrainError(
            f"{path}: version {data.get('format_version')!r}, this Haechi reads version {FORMAT_VERSION}; "
            "use the Haechi that wrote it, or train again"
        )
    data.setdefault("longest_seconds", math.inf)  # missing in the first files of this version
    problems = [
        f"{name} is {type(data[name]).__name__ if name in data else 'missing'}, expected {kind.__name__}"
        for name, kind in FIELDS.items()
        if not isinstance(data.get(name), kind)
    ]
    if not problems:
        problems = [*_problems(data), *_feature_problems(data["features"])]
    if problems:
        raise TrainError(f"{path}: damaged:\n{bullet_list(problems)}")
    try:
        settings = TrainSettings.from_dict(data["settings"])
    except SettingsError as error:
        raise TrainError(f"{path}: damaged: {error}") from error
    if list(data["streams"]) != (names := stream_names(settings)):
        raise TrainError(f"{path}: damaged: streams are {list(data['streams'])}, expected {names} by its settings")
    with torch.device("meta"):  # shapes only: a wrong width costs no memory
        row_width, *constant_width = data["streams"].values()
        head = Head(row_width, sum(constant_width), settings)
    problems = _state_problems(head.state_dict(), data["model_state_dict"])
    if problems:
        raise TrainError(f"{path}: its weights do not fit its settings:\n{bullet_list(problems)}")
    head.load_state_dict(data["model_state_dict"], assign=True)
    head.drop_unused()
    head.eval()
    values = {name: data[name] for name in FIELDS if name not in OBJECTS}
    # The first files of this version name all backbones of the cache with random weights.
    values["untrained"] = seen_by_head(data["untrained"], data["streams"])
    return Checkpoint(head=head, settings=settings, calibration=Calibration(**data["calibration"]), **values)


def _problems(data: dict[str, Any]) -> list[str]:
    """Values of `FIELDS`, of the right types, that are out of range or contradict each other."""
    problems = []
    if not 0 <= data["best_threshold"] <= 1:
        problems.append(f"best_threshold is {data['best_threshold']}, expected 0 to 1")
    if not data["longest_seconds"] >= 0:
        problems.append(f"longest_seconds is {data['longest_seconds']}, expected at least 0")
    streams = data["streams"]
    if not streams or not all(
        isinstance(n, str) and isinstance(w, int) and 0 < w <= 1 << 20 for n, w in streams.items()
    ):
        problems.append(f"streams is {streams!r}, expected names and widths")
    if not all(isinstance(name, str) for name in data["untrained"]):
        problems.append(f"untrained is {data['untrained']!r}, expected names of backbones")
    calibration = data["calibration"]
    if calibration.keys() != {"shift", "temperature"} or not all(
        isinstance(value, float) and math.isfinite(value) for value in calibration.values()
    ):
        problems.append(f"calibration is {calibration!r}, expected a finite shift and temperature")
    elif calibration["temperature"] <= 0:
        problems.append(f"calibration has temperature {calibration['temperature']}, expected more than 0")
    if schema.fingerprint_of(data["features"].get("settings", {})) != data["fingerprint"]:
        problems.append("fingerprint is not the hash of features.settings")
    return problems


def _feature_problems(features: dict[str, Any]) -> list[str]:
    """Entries of `Checkpoint.features` that `predict` needs and that are missing or wrong."""
    held = features.get("settings")
    if not isinstance(held, dict):
        return [f"features.settings is {held!r}, expected the values that the fingerprint hashes"]
    expected = {
        **{f"features.{stream}_weights": features.get(f"{stream}_weights") for stream in schema.STREAMS},
        "features.settings.store": held.get("store"),
        **{
            f"features.settings.{name}.model": part.get("model") if isinstance(part := held.get(name), dict) else None
            for name in schema.STREAMS
        },
    }
    return [f"{name} is {value!r}, expected text" for name, value in expected.items() if not isinstance(value, str)]


def _state_problems(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Weights that are missing, unknown, of another shape or type, or not finite."""
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name!r} is unknown" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        want, got = expected[name], found[name]
        if not isinstance(got, torch.Tensor):
            problems.append(f"{name} is {type(got).__name__}, expected a tensor")
        elif got.shape != want.shape or got.dtype != want.dtype:
            problems.append(f"{name} is {tuple(got.shape)} {got.dtype}, expected {tuple(want.shape)} {want.dtype}")
        elif not got.isfinite().all():
            problems.append(f"{name} has NaN or infinite values")
    return sorted(problems)
