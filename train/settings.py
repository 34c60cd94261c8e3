"""What a training run is told. The fields' defaults are the report's Model 4; a preset is a named set of others."""

import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from haechi.cache.kinds import IMAGE, KINDS, VIDEO
from haechi.cache.text import bullet_list
from haechi.train.errors import TrainError
from haechi.train.policy import Policy

SLOWFAST_CHOICES = ("pooled", "logits", "none")
LOSS_CHOICES = ("bce", "focal")
SCHEDULE_CHOICES = ("constant", "cosine", "onecycle")
PRECISION_CHOICES = ("auto", "fp32", "bf16")

MOST_ROWS = 1 << 20

# Where each preset differs from the fields' defaults. Those of `fast` were chosen by cross-validation and time; drawing
# the encoder's dropout took a third of a step on a CPU and changed no figure. A head that starts as a regression may
# need some epochs before it is better than that: patience is longer. `image` is the report's model of images: no
# encoder, and an MLP of its own (see `head.py`).
PRESETS: dict[str, dict[str, Any]] = {
    "model4": {},
    "fast": {
        "regression": True,
        "projection": 256,
        "num_layers": 1,
        "feedforward": 256,
        "dropout": 0.0,
        "patience": 10,
        "batch_size": 64,
        "lr": 1e-3,
        "precision": "auto",
    },
    "image": {"media": IMAGE, "slowfast": "none", "num_layers": 0, "batch_size": 8, "lr": 1e-3},
}
DEFAULT_PRESETS = {VIDEO: "fast", IMAGE: "image"}
DEFAULT_PRESET = DEFAULT_PRESETS[VIDEO]


class SettingsError(TrainError):
    """Training settings out of range."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(f"training settings out of range:\n{bullet_list(problems)}")
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Every number that shapes a run; source of the defaults: the report's Model 4, unless a field says otherwise.

    Raises `SettingsError` that lists every field out of its range.
    """

    preset: str = "model4"
    """The preset that `of_preset` took the values from that were not given."""
    media: str = VIDEO
    """Which kind of media a head is for: `video`, or `image`, which has one frame and no motion."""
    clip: bool = True
    """Whether the head sees the CLIP embedding of each frame."""
    slowfast: str = "logits"
    """What it sees of SlowFast: the `pooled` features, the Kinetics `logits`, or `none`."""
    max_rows: int = 256
    """Rows of a video that the head sees, at most: of a longer one so many, evenly spaced. Attention is quadratic in
    rows, and a head that does not know their order sees in fewer of them the same, more coarsely. Our choice: 8 times
    the report's."""
    regression: bool = False
    """Whether the head starts as a logistic regression on pooled features, and learns what that misses; the report's
    does not."""
    projection: int = 0
    """Width to which the head projects its input before the encoder; 0: none, as the report."""
    num_layers: int = 2
    """Layers of the Transformer encoder; 0: none, the MLP sees the mean of the rows."""
    feedforward: int = 512
    """Width of the feed-forward part of each layer."""
    dropout: float = 0.4
    """Inside the encoder; the MLP behind it has its own (see `head.py`)."""
    epochs: int = 10
    patience: int = 4
    """Training stops after so many epochs in a row that brought nothing better."""
    batch_size: int = 4
    """At least 2: BatchNorm cannot train on one video."""
    lr: float = 3e-4
    """Adam's learning rate."""
    weight_decay: float = 3e-3
    """Adam's: added to the gradient (L2), not decoupled."""
    pos_weight: float | None = None
    """Weight of a harmful video in the loss; None: safe / harmful videos of the training split."""
    loss: str = "bce"
    """`bce`, binary cross-entropy, or `focal` (see `loss.py`)."""
    focal_gamma: float = 2.0
    """Exponent of the focal loss: how little videos count that are right already. Source: Lin et al. 2017."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over both classes; the report has none."""
    schedule: str = "constant"
    """Learning rate over the steps of all epochs: `constant` as in the report, `cosine` down to 0, or `onecycle`, up to
    `lr` and down."""
    ema: float = 0.0
    """Share that an epoch leaves of the averaged weights before it, by an exponential moving average over its steps;
    the averaged weights are those that are judged and kept. 0: no averaging, as in the report."""
    val_fraction: float = 0.15
    """Share of the videos that validate, where the cache says nothing of a split."""
    test_fraction: float = 0.15
    """Share of the videos that are only scored at the end, where the cache says nothing of a split; 0: none. The
    report had none."""
    folds: int | None = None
    """Folds of cross-validation, 0: none; None: 5 where the data are too few for a test part."""
    scenes: bool = True
    """Whether near-duplicate videos are searched for, by their features; files of the same bytes are known anyway."""
    policy: str = "f1"
    """What the threshold is chosen for (see `policy.py`)."""
    seed: int = 0
    """Decides split, first weights, order and dropout. Our choice: the report names none."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`: CUDA where there is one."""
    precision: str = "fp32"
    """Of the training steps: `fp32`, `bf16` (autocast), or `auto`: bf16 where the device computes in it. Scores are
    always computed in fp32."""

    def __post_init__(self) -> None:
        expectations = [
            ("preset", self.preset in tuple(PRESETS), f"one of {', '.join(PRESETS)}"),
            ("media", self.media in KINDS, f"one of {', '.join(KINDS)}"),
            ("clip", isinstance(self.clip, bool), "true or false"),
            ("slowfast", self.slowfast in SLOWFAST_CHOICES, f"one of {', '.join(SLOWFAST_CHOICES)}"),
            ("max_rows", _is_whole(self.max_rows, 1, MOST_ROWS), f"a whole number from 1 to {MOST_ROWS}"),
            ("regression", isinstance(self.regression, bool), "true or false"),
            ("projection", _is_whole(self.projection, 0, 1 << 16), "a whole number from 0 (none) to 65536"),
            ("num_layers", _is_whole(self.num_layers, 0, 64), "a whole number from 0 (none) to 64"),
            ("feedforward", _is_whole(self.feedforward, 1, 1 << 16), "a whole number from 1 to 65536"),
            ("dropout", _is_number(self.dropout) and 0 <= self.dropout < 1, "a number from 0 up to, not including, 1"),
            ("epochs", _is_whole(self.epochs, 1, 1 << 20), "a whole number of at least 1"),
            ("patience", _is_whole(self.patience, 1, 1 << 20), "a whole number of at least 1"),
            ("batch_size", _is_whole(self.batch_size, 2, 1 << 20), "at least 2: BatchNorm cannot train on one video"),
            ("lr", _is_number(self.lr) and self.lr > 0, "a number above 0"),
            ("weight_decay", _is_number(self.weight_decay) and self.weight_decay >= 0, "a number of at least 0"),
            (
                "pos_weight",
                self.pos_weight is None or (_is_number(self.pos_weight) and self.pos_weight > 0),
                "a number above 0, or nothing: safe / harmful videos of the training split",
            ),
            ("loss", self.loss in LOSS_CHOICES, f"one of {', '.join(LOSS_CHOICES)}"),
            ("focal_gamma", _is_number(self.focal_gamma) and self.focal_gamma >= 0, "a number of at least 0"),
            (
                "label_smoothing",
                _is_number(self.label_smoothing) and 0 <= self.label_smoothing < 1,
                "a number from 0 up to, not including, 1",
            ),
            ("schedule", self.schedule in SCHEDULE_CHOICES, f"one of {', '.join(SCHEDULE_CHOICES)}"),
            ("ema", _is_number(self.ema) and 0 <= self.ema < 1, "a number from 0 up to, not including, 1"),
            (
                "val_fraction",
                _is_number(self.val_fraction) and 0 < self.val_fraction < 1,
                "a number between 0 and 1, without both ends",
            ),
            (
                "test_fraction",
                _is_number(self.test_fraction) and 0 <= self.test_fraction < 1,
                "a number from 0 (none) up to, not including, 1",
            ),
            (
                "folds",
                self.folds is None or self.folds == 0 or _is_whole(self.folds, 2, 100),
                "a whole number from 2 to 100, 0 (none), or nothing: 5 where the data are too few for a test part",
            ),
            ("scenes", isinstance(self.scenes, bool), "true or false"),
            ("seed", _is_whole(self.seed, 0, (1 << 32) - 1), "a whole number from 0 to 4294967295"),
            (
                "device",
                isinstance(self.device, str) and re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.device) is not None,
                "auto, cpu, cuda or cuda:NUMBER",
            ),
            ("precision", self.precision in PRECISION_CHOICES, f"one of {', '.join(PRECISION_CHOICES)}"),
        ]
        problems = [
            f"{name} is {getattr(self, name)!r}, expected {text}" for name, good, text in expectations if not good
        ]
        try:
            Policy.parse(self.policy if isinstance(self.policy, str) else repr(self.policy))
        except TrainError as error:
            problems.append(str(error))
        are_shares = not any(problem.startswith(("val_fraction", "test_fraction")) for problem in problems)
        if are_shares and self.val_fraction + self.test_fraction >= 1:
            problems.append("val_fraction and test_fraction leave no video to train on")
        if self.clip is False and self.slowfast == "none":
            problems.append("clip is False and slowfast is 'none': nothing is left to train on")
        if self.media == IMAGE and self.slowfast != "none":
            problems.append(f"slowfast is {self.slowfast!r}, expected none: images have no SlowFast features")
        if problems:
            raise SettingsError(problems)

    @classmethod
    def of_preset(cls, preset: str, **given: Any) -> "TrainSettings":
        """A preset's settings, with those `given` in their place; None: not given."""
        values = {name: value for name, value in given.items() if value is not None}
        return cls(**{**PRESETS.get(preset, {}), **values, "preset": preset})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainSettings":
        """Settings as `to_dict` gave them. A field that is absent, as in files of older versions, has its default:
        they knew only Model 4. But for `max_rows`: their heads saw all rows.

        Raises `TrainError` for unknown fields and for values out of range.
        """
        if unknown := sorted(values.keys() - {field.name for field in fields(cls)}):
            raise TrainError(f"unknown training settings: {', '.join(map(repr, unknown))}; made by a newer Haechi?")
        return cls(**{"max_rows": MOST_ROWS, **values})

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name, fit for JSON."""
        return asdict(self)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
