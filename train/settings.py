"""The settings of a training run. The fields' defaults are the report's Model 4; a preset is a named set of others."""

from collections.abc import Set
from dataclasses import asdict, dataclass, fields
from typing import Any

from haechi.cache.errors import SettingsError
from haechi.cache.groups import GroupRule
from haechi.cache.kinds import IMAGE, KINDS, VIDEO
from haechi.cache.rules import DEVICE, Flag, Number, OneOf, Optional, Whole, broken_rules, setting, unknown_fields
from haechi.train.errors import TrainError
from haechi.train.policy import Policy

SLOWFAST_CHOICES = ("pooled", "logits", "none")
LOSS_CHOICES = ("bce", "focal")
SCHEDULE_CHOICES = ("constant", "cosine", "onecycle")
PRECISION_CHOICES = ("auto", "fp32", "bf16")

MOST_ROWS = 1 << 20

SHARE = Number(least=0, below=1)


class Folds:
    """The number of folds: 2 to 100, 0 for no cross-validation, or None for the default."""

    expected = "a whole number from 2 to 100, 0 (no folds), or None (5 if there are too few videos for a test part)"

    def allows(self, value: Any) -> bool:
        return value is None or Whole(0, 0).allows(value) or Whole(2, 100).allows(value)


# Preset -> the values that differ from the fields' defaults, which are the report's Model 4. `fast` and `image` were
# chosen by nested cross-validation (docs/numbers.md). Of `network`, dropout in the encoder took a third of the time of
# a step on a CPU and changed no figure. `image_mlp` is the report's model for images: no encoder, another MLP (see
# `head.py`).
PRESETS: dict[str, dict[str, Any]] = {
    "model4": {},
    "fast": {"regression": True, "moments": 16, "network": False},
    "network": {
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
    "image": {"media": IMAGE, "slowfast": "none", "regression": True, "network": False},
    "image_mlp": {"media": IMAGE, "slowfast": "none", "num_layers": 0, "batch_size": 8, "lr": 1e-3},
}
# What a head without a network does not use.
NETWORK_FIELDS = (
    *("projection", "num_layers", "feedforward", "dropout", "epochs", "patience", "batch_size", "lr", "weight_decay"),
    *("loss", "focal_gamma", "label_smoothing", "schedule", "ema", "precision"),
)
DEFAULT_PRESETS = {VIDEO: "fast", IMAGE: "image"}
DEFAULT_PRESET = DEFAULT_PRESETS[VIDEO]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """All settings of a run. The defaults are those of the report's Model 4, unless a field says otherwise.

    Raises `SettingsError` that lists every value that breaks its rule.
    """

    preset: str = setting("model4", OneOf(tuple(PRESETS)))
    """The preset that `from_preset` used for the values that were not given."""
    media: str = setting(VIDEO, OneOf(KINDS))
    """The kind of media that the head is for: `video`, or `image`, which has one frame and no motion."""
    clip: bool = setting(True, Flag())
    """Whether the head sees the CLIP embedding of each frame."""
    slowfast: str = setting("logits", OneOf(SLOWFAST_CHOICES))
    """The SlowFast features that the head sees: the `pooled` features, the Kinetics `logits`, or `none`."""
    max_rows: int = setting(256, Whole(1, MOST_ROWS))
    """Maximum number of rows of a video that the head sees; of a longer video, this many evenly spaced rows. The cost
    of attention is quadratic in the number of rows, and the head does not use their order: fewer rows are only a
    coarser sample. Our choice: 8 times the report's."""
    regression: bool = setting(False, Flag())
    """Whether the head starts as a logistic regression on pooled features, and learns what the regression misses; the
    report's head does not."""
    moments: int = setting(0, Whole(0, 1 << 10))
    """Number of directions in which the head looks for moments that the mean over a video hides (see `head.py`); they
    are used only if they are significantly better than the regression alone. 0: none, as in the report."""
    network: bool = setting(True, Flag())
    """Whether the head has a network: projection, encoder and MLP."""
    projection: int = setting(0, Whole(0, 1 << 16))
    """Width to which the head projects its input before the encoder; 0: no projection, as in the report."""
    num_layers: int = setting(2, Whole(0, 64))
    """Layers of the Transformer encoder; 0: no encoder, the MLP sees the mean of the rows."""
    feedforward: int = setting(512, Whole(1, 1 << 16))
    """Width of the feed-forward part of each layer."""
    dropout: float = setting(0.4, SHARE)
    """Dropout in the encoder; that of the MLP is fixed (see `head.py`)."""
    epochs: int = setting(10, Whole(1, 1 << 20))
    """Maximum number of passes over the training videos."""
    patience: int = setting(4, Whole(1, 1 << 20))
    """Training stops after this many epochs without improvement."""
    batch_size: int = setting(4, Whole(2, 1 << 20, "BatchNorm cannot train on one video"))
    """Videos per training step."""
    lr: float = setting(3e-4, Number(above=0))
    """Adam's learning rate."""
    weight_decay: float = setting(3e-3, Number(least=0))
    """Adam's weight decay: added to the gradient (L2), not decoupled."""
    pos_weight: float | None = setting(None, Optional(Number(above=0), "safe / harmful training videos"))
    """Weight of a harmful video in the loss; None: safe / harmful videos of the training split."""
    loss: str = setting("bce", OneOf(LOSS_CHOICES))
    """`bce`, binary cross-entropy, or `focal` (see `loss.py`)."""
    focal_gamma: float = setting(2.0, Number(least=0))
    """Exponent of the focal loss; a larger one gives less weight to videos that are already classified correctly.
    Source: Lin et al. 2017."""
    label_smoothing: float = setting(0.0, SHARE)
    """Share of each label that is spread over both classes; 0: none, as in the report."""
    schedule: str = setting("constant", OneOf(SCHEDULE_CHOICES))
    """Learning rate over the steps of all epochs: `constant` as in the report, `cosine` down to 0, or `onecycle`, up to
    `lr` and down."""
    ema: float = setting(0.0, SHARE)
    """Decay per epoch of the exponential moving average of the weights, which is updated at every step. The averaged
    weights are validated and kept. 0: no averaging, as in the report."""
    val_fraction: float = setting(0.15, Number(above=0, below=1))
    """Share of the videos drawn for validation if the cache has no split."""
    test_fraction: float = setting(0.15, SHARE)
    """Share of the videos drawn for the test, which is scored once at the end, if the cache has no split; 0: no test,
    as in the report."""
    folds: int | None = setting(None, Folds())
    """Folds of cross-validation; 0: none; None: 5 if there are too few videos for a test part."""
    scenes: bool = setting(True, Flag())
    """Whether to search near-duplicate videos by their features; files with the same bytes are always found."""
    group_by: str = ""
    """Regular expression that finds each video's group in its id, instead of the cache's groups (see
    `haechi.cache.groups`). Empty: the groups of the cache or of the file of labels."""
    sample: int | None = setting(None, Optional(Whole(2, 1 << 40), "all"))
    """Train on about this many of the labelled videos, stratified, with whole groups; None: on all."""
    policy: str = "f1"
    """The policy for choosing the threshold (see `policy.py`)."""
    seed: int = setting(0, Whole(0, (1 << 32) - 1))
    """Random seed of split, initial weights, order and dropout. Our choice: the report has none."""
    device: str = setting("auto", DEVICE)
    """`cpu`, `cuda`, `cuda:1`, or `auto`: CUDA if there is a CUDA device."""
    precision: str = setting("fp32", OneOf(PRECISION_CHOICES))
    """Precision of the training steps: `fp32`, `bf16` (autocast), or `auto`: bf16 if the device supports it. Scores are
    always computed in fp32."""

    def __post_init__(self) -> None:
        broken = broken_rules(self)
        if problems := [*broken.values(), *self._conflicts(broken.keys())]:
            raise SettingsError(problems)

    def _conflicts(self, broken: Set[str]) -> list[str]:
        """An invalid policy, and combinations of fields that cannot be used, without the fields of `broken`."""
        problems = []
        try:
            Policy.parse(self.policy if isinstance(self.policy, str) else repr(self.policy))
        except TrainError as error:
            problems.append(str(error))
        if self.group_by != "":
            try:
                GroupRule.parse(self.group_by)
            except SettingsError as error:
                problems += error.problems
        if not {"val_fraction", "test_fraction"} & broken and self.val_fraction + self.test_fraction >= 1:
            problems.append("val_fraction and test_fraction leave no video to train on")
        if self.clip is False and self.slowfast == "none":
            problems.append("clip is False and slowfast is 'none': nothing is left to train on")
        if self.network is False and self.regression is False:
            problems.append("network is False and regression is False: nothing is left to train")
        if self.network is True and self.moments:
            problems.append(f"moments is {self.moments} and network is True: moments are for a head without a network")
        if isinstance(self.moments, int) and self.moments % 2:
            problems.append(f"moments is {self.moments}, expected an even number: directions are used in both senses")
        if self.media == IMAGE and "slowfast" not in broken and self.slowfast != "none":
            problems.append(f"slowfast is {self.slowfast!r}, expected none: images have no SlowFast features")
        return problems

    @classmethod
    def from_preset(cls, preset: str | None, **given: Any) -> "TrainSettings":
        """The settings of a preset, with the values of `given` instead where they are not None.

        `preset` None: the default one for the kind of media. Raises `SettingsError` that lists unknown names too.
        """
        values = {name: value for name, value in given.items() if value is not None}
        if problems := unknown_fields(cls, values):
            raise SettingsError(problems)
        if preset is None:
            preset = DEFAULT_PRESETS[IMAGE if values.get("media") == IMAGE else VIDEO]
        return cls(**{**PRESETS.get(preset, {}), **values, "preset": preset})

    @property
    def unused(self) -> list[str]:
        """Fields that were changed and have no effect, since the head has no network."""
        return (
            []
            if self.network
            else [name for name in NETWORK_FIELDS if getattr(self, name) != getattr(TrainSettings, name)]
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainSettings":
        """Settings from the dict of `to_dict`.

        A field that is missing, as in files of older versions, has its default, since these had only Model 4; but
        `max_rows` has its maximum, since their heads saw all rows.

        Raises `TrainError` for unknown fields, `SettingsError` for values that break their rules.
        """
        if unknown := sorted(values.keys() - {field.name for field in fields(cls)}):
            raise TrainError(f"unknown training settings: {', '.join(map(repr, unknown))}; written by a newer Haechi?")
        return cls(**{"max_rows": MOST_ROWS, **values})

    def to_dict(self) -> dict[str, Any]:
        """Field -> plain value, as for JSON."""
        return asdict(self)
