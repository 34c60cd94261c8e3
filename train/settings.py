"""What a training run is told. The fields' defaults are the report's Model 4; a preset is a named set of others."""

from collections.abc import Set
from dataclasses import asdict, dataclass, fields
from typing import Any

from haechi.cache.errors import SettingsError
from haechi.cache.kinds import IMAGE, KINDS, VIDEO
from haechi.cache.rules import Flag, Number, OneOf, Optional, Text, Whole, broken_rules, setting
from haechi.train.errors import TrainError
from haechi.train.policy import Policy

SLOWFAST_CHOICES = ("pooled", "logits", "none")
LOSS_CHOICES = ("bce", "focal")
SCHEDULE_CHOICES = ("constant", "cosine", "onecycle")
PRECISION_CHOICES = ("auto", "fp32", "bf16")

MOST_ROWS = 1 << 20

SHARE = Number(least=0, below=1)


class Folds:
    """How many folds: none (0), or enough to judge by, or None."""

    expected = "a whole number from 2 to 100, 0 (none), or None (5 where the data are too few for a test part)"

    def allows(self, value: Any) -> bool:
        return value is None or value == 0 or Whole(2, 100).allows(value)


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


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Every number that shapes a run; source of the defaults: the report's Model 4, unless a field says otherwise.

    Raises `SettingsError` that lists every field out of its range.
    """

    preset: str = setting("model4", OneOf(tuple(PRESETS)))
    """The preset that `of_preset` took the values from that were not given."""
    media: str = setting(VIDEO, OneOf(KINDS))
    """Which kind of media a head is for: `video`, or `image`, which has one frame and no motion."""
    clip: bool = setting(True, Flag())
    """Whether the head sees the CLIP embedding of each frame."""
    slowfast: str = setting("logits", OneOf(SLOWFAST_CHOICES))
    """What it sees of SlowFast: the `pooled` features, the Kinetics `logits`, or `none`."""
    max_rows: int = setting(256, Whole(1, MOST_ROWS))
    """Rows of a video that the head sees, at most: of a longer one so many, evenly spaced. Attention is quadratic in
    rows, and a head that does not know their order sees in fewer of them the same, more coarsely. Our choice: 8 times
    the report's."""
    regression: bool = setting(False, Flag())
    """Whether the head starts as a logistic regression on pooled features, and learns what that misses; the report's
    does not."""
    projection: int = setting(0, Whole(0, 1 << 16))
    """Width to which the head projects its input before the encoder; 0: none, as the report."""
    num_layers: int = setting(2, Whole(0, 64))
    """Layers of the Transformer encoder; 0: none, the MLP sees the mean of the rows."""
    feedforward: int = setting(512, Whole(1, 1 << 16))
    """Width of the feed-forward part of each layer."""
    dropout: float = setting(0.4, SHARE)
    """Inside the encoder; the MLP behind it has its own (see `head.py`)."""
    epochs: int = setting(10, Whole(1, 1 << 20))
    patience: int = setting(4, Whole(1, 1 << 20))
    """Training stops after so many epochs in a row that brought nothing better."""
    batch_size: int = setting(4, Whole(2, 1 << 20, "BatchNorm cannot train on one video"))
    """At least 2: BatchNorm cannot train on one video."""
    lr: float = setting(3e-4, Number(above=0))
    """Adam's learning rate."""
    weight_decay: float = setting(3e-3, Number(least=0))
    """Adam's: added to the gradient (L2), not decoupled."""
    pos_weight: float | None = setting(None, Optional(Number(above=0), "safe / harmful training videos"))
    """Weight of a harmful video in the loss; None: safe / harmful videos of the training split."""
    loss: str = setting("bce", OneOf(LOSS_CHOICES))
    """`bce`, binary cross-entropy, or `focal` (see `loss.py`)."""
    focal_gamma: float = setting(2.0, Number(least=0))
    """Exponent of the focal loss: how little videos count that are right already. Source: Lin et al. 2017."""
    label_smoothing: float = setting(0.0, SHARE)
    """Share of each label that is spread over both classes; the report has none."""
    schedule: str = setting("constant", OneOf(SCHEDULE_CHOICES))
    """Learning rate over the steps of all epochs: `constant` as in the report, `cosine` down to 0, or `onecycle`, up to
    `lr` and down."""
    ema: float = setting(0.0, SHARE)
    """Share that an epoch leaves of the averaged weights before it, by an exponential moving average over its steps;
    the averaged weights are those that are judged and kept. 0: no averaging, as in the report."""
    val_fraction: float = setting(0.15, Number(above=0, below=1))
    """Share of the videos that validate, where the cache says nothing of a split."""
    test_fraction: float = setting(0.15, SHARE)
    """Share of the videos that are only scored at the end, where the cache says nothing of a split; 0: none. The
    report had none."""
    folds: int | None = setting(None, Folds())
    """Folds of cross-validation, 0: none; None: 5 where the data are too few for a test part."""
    scenes: bool = setting(True, Flag())
    """Whether near-duplicate videos are searched for, by their features; files of the same bytes are known anyway."""
    policy: str = "f1"
    """What the threshold is chosen for (see `policy.py`)."""
    seed: int = setting(0, Whole(0, (1 << 32) - 1))
    """Decides split, first weights, order and dropout. Our choice: the report names none."""
    device: str = setting("auto", Text(r"auto|cpu|cuda(:\d{1,3})?", "auto, cpu, cuda or cuda:NUMBER"))
    """`cpu`, `cuda`, `cuda:1`, or `auto`: CUDA where there is one."""
    precision: str = setting("fp32", OneOf(PRECISION_CHOICES))
    """Of the training steps: `fp32`, `bf16` (autocast), or `auto`: bf16 where the device computes in it. Scores are
    always computed in fp32."""

    def __post_init__(self) -> None:
        broken = broken_rules(self)
        if problems := [*broken.values(), *self._conflicts(broken.keys())]:
            raise SettingsError(problems)

    def _conflicts(self, broken: Set[str]) -> list[str]:
        """A policy that is none, and how fields do not go together; those of `broken` are left out."""
        problems = []
        try:
            Policy.parse(self.policy if isinstance(self.policy, str) else repr(self.policy))
        except TrainError as error:
            problems.append(str(error))
        if not {"val_fraction", "test_fraction"} & broken and self.val_fraction + self.test_fraction >= 1:
            problems.append("val_fraction and test_fraction leave no video to train on")
        if self.clip is False and self.slowfast == "none":
            problems.append("clip is False and slowfast is 'none': nothing is left to train on")
        if self.media == IMAGE and "slowfast" not in broken and self.slowfast != "none":
            problems.append(f"slowfast is {self.slowfast!r}, expected none: images have no SlowFast features")
        return problems

    @classmethod
    def of_preset(cls, preset: str, **given: Any) -> "TrainSettings":
        """A preset's settings, with those `given` in their place; None: not given."""
        values = {name: value for name, value in given.items() if value is not None}
        return cls(**{**PRESETS.get(preset, {}), **values, "preset": preset})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainSettings":
        """Settings as `to_dict` gave them. A field that is absent, as in files of older versions, has its default:
        they knew only Model 4. But for `max_rows`: their heads saw all rows.

        Raises `TrainError` for unknown fields, `SettingsError` for values that break their rules.
        """
        if unknown := sorted(values.keys() - {field.name for field in fields(cls)}):
            raise TrainError(f"unknown training settings: {', '.join(map(repr, unknown))}; made by a newer Haechi?")
        return cls(**{"max_rows": MOST_ROWS, **values})

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name, fit for JSON."""
        return asdict(self)
