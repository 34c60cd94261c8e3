"""Which weights a backbone gets: a name that its library fetches, a local file, or random ones by seed."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from haechi.cache.errors import HaechiError, SettingsError
from haechi.cache.schema import FRAME_STREAM, WINDOW_STREAM
from haechi.extract.decoding.files import sha256_of

if TYPE_CHECKING:
    import torch  # a run with nothing to do reads weights too, and must not wait for the import of torch

WEIGHTS_FLAGS = {FRAME_STREAM: "--clip-weights", WINDOW_STREAM: "--slowfast-weights"}

LOCAL_MODEL = "local-dir:"
QUICKGELU = "-quickgelu"  # open_clip's suffix for an architecture with the activation that OpenAI used

RANDOM = re.compile(r"random:(?P<seed>\d{1,9})")

# What torch.load, safetensors and load_state_dict raise for a file that is damaged, unsafe or for another model.
LOAD_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    AssertionError,
    AttributeError,
    TypeError,
    EOFError,
    StopIteration,
    UnpicklingError,
    SafetensorError,
)


class WeightsError(HaechiError):
    """Weights that cannot be found, fetched or loaded into the model."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A parsed request for weights."""

    request: str
    seed: int | None
    """The seed of `random:SEED`, else None."""
    file: Path | None
    """The file, if the request names one that exists."""
    tag: str | None
    """The name that the library has for the weights, from `TAG` or `TAG=PATH`: decides activation and preprocessing."""

    @classmethod
    def parse(cls, request: str, *, flag: str) -> "Weights":
        """Parse `random:SEED`, `PATH`, `TAG=PATH` or `TAG`; `flag` is named in errors.

        Raises `WeightsError` for a file that does not exist and for a malformed `random:SEED`.
        """
        if match := RANDOM.fullmatch(request):
            return cls(request=request, seed=int(match["seed"]), file=None, tag=None)
        if request.startswith("random"):
            raise WeightsError(f"{flag} {request}: expected random:SEED, such as random:0, for untrained weights")
        if Path(request).is_file():
            return cls(request=request, seed=None, file=Path(request), tag=None)
        tag, equals, name = request.partition("=")
        if equals and Path(name).is_file():
            return cls(request=request, seed=None, file=Path(name), tag=tag)
        if cls.names_a_file(request):
            raise WeightsError(f"{flag} {request}: no such file")
        return cls(request=request, seed=None, file=None, tag=request)

    @staticmethod
    def names_a_file(request: str) -> bool:
        """Whether a request means a file, existing or not."""
        return bool("=" in request or Path(request).suffix or len(Path(request).parts) > 1)

    @property
    def trained(self) -> bool:
        return self.seed is None


def model_identity(model: str) -> str:
    """The name of an architecture in the cache's settings; for a local folder, the hash of its configuration.

    Raises `SettingsError` for a folder without a configuration.
    """
    if not model.startswith(LOCAL_MODEL):
        return model
    path = Path(model.removeprefix(LOCAL_MODEL), "open_clip_config.json")
    if not path.is_file():
        raise SettingsError([f"--clip-model {model}: no file {path}"])
    return f"{LOCAL_MODEL}{sha256_of(path)}"


def first_line(error: Exception) -> str:
    """The first line of a library's error, at most 300 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def sha256_of_state(model: "torch.nn.Module") -> str:
    """SHA-256 of names, types, shapes and bytes of all parameters and buffers: identifies random weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
