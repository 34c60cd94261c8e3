import dataclasses
import subprocess
import sys

import pytest

from haechi.cache.errors import SettingsError
from haechi.train.errors import TrainError
from haechi.train.settings import DEFAULT_PRESET, MOST_ROWS, PRESETS, TrainSettings


def test_the_defaults_are_model_4() -> None:
    s = TrainSettings()
    assert s == TrainSettings.from_preset("model4")
    assert (s.projection, s.precision) == (0, "fp32")
    assert (s.num_layers, s.feedforward, s.dropout) == (2, 512, 0.4)
    assert (s.lr, s.weight_decay, s.batch_size, s.epochs, s.patience) == (3e-4, 3e-3, 4, 10, 4)
    assert (s.clip, s.slowfast, s.pos_weight, s.val_fraction) == (True, "logits", None, 0.15)


def test_a_preset_gives_way_to_what_is_given() -> None:
    network = TrainSettings.from_preset("network")
    assert (network.preset, network.projection, network.batch_size, network.precision) == ("network", 256, 64, "auto")
    assert TrainSettings.from_preset("network", batch_size=None, lr=0.5) == dataclasses.replace(network, lr=0.5)
    assert DEFAULT_PRESET in PRESETS
    with pytest.raises(SettingsError, match="preset is 'slow', expected one of model4, fast, network, image"):
        TrainSettings.from_preset("slow")
    with pytest.raises(SettingsError, match="no such settings: 'warmup', 'momentum'; the settings are preset, media, "):
        TrainSettings.from_preset("fast", warmup=3, momentum=0.9, lr=0.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("preset", "x"),
        ("projection", -1),
        ("precision", "fp16"),
        ("clip", 1),
        ("slowfast", "both"),
        ("num_layers", -1),
        ("feedforward", 0.5),
        ("dropout", 1.0),
        ("epochs", 0),
        ("epochs", True),
        ("patience", 0),
        ("batch_size", 1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("weight_decay", -1e-9),
        ("pos_weight", 0.0),
        ("pos_weight", float("inf")),
        ("val_fraction", 1.0),
        ("val_fraction", 0.0),
        ("seed", -1),
        ("seed", 1 << 32),
        ("device", "gpu"),
        ("device", "cuda:"),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"{field} is "):
        TrainSettings(**{field: value})


def test_the_default_head_is_a_regression_with_moments_and_no_network() -> None:
    fast = TrainSettings.from_preset(DEFAULT_PRESET)
    assert (fast.preset, fast.regression, fast.moments, fast.network) == ("fast", True, 16, False)
    assert all((TrainSettings.from_preset(name).moments > 0) == (name == "fast") for name in PRESETS)
    assert [name for name in PRESETS if not TrainSettings.from_preset(name).network] == ["fast", "image"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": False}, "network is False and regression is False: nothing is left to train"),
        ({"moments": 16}, "moments is 16 and network is True: moments are for a head without a network"),
        ({"network": False, "regression": True, "moments": 3}, "moments is 3, expected an even number"),
        ({"moments": -2}, "moments is -2, expected"),
        ({"moments": True}, "moments is True, expected"),
        ({"network": 0}, "network is 0, expected true or false"),
    ],
)
def test_parts_that_do_not_go_together_are_named(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TrainSettings(**changes)


def test_settings_without_an_effect_are_known() -> None:
    """They are those of the network; all others have an effect without one."""
    changed = {"epochs": 3, "lr": 0.5, "projection": 8, "ema": 0.5, "pos_weight": 2.0, "seed": 3, "moments": 4}
    fast = TrainSettings.from_preset("fast", **changed)
    assert sorted(fast.unused) == ["ema", "epochs", "lr", "projection"]
    assert TrainSettings.from_preset("fast").unused == []
    assert TrainSettings.from_preset("network", epochs=3, lr=0.5, projection=8, ema=0.5).unused == []


def test_settings_from_before_the_moments_have_a_network_and_no_moments() -> None:
    values = TrainSettings.from_preset("network").to_dict()
    del values["moments"], values["network"]
    assert TrainSettings.from_dict(values) == TrainSettings.from_preset("network")


def test_all_offenders_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        TrainSettings(lr=-1.0, epochs=0, clip=False, slowfast="none")
    assert all(word in str(caught.value) for word in ("lr is -1.0", "epochs is 0", "nothing is left to train on"))


def test_settings_survive_a_round_trip_and_refuse_unknown_fields() -> None:
    settings = TrainSettings(lr=1e-3, pos_weight=0.5, device="cuda:1")
    assert TrainSettings.from_dict(settings.to_dict()) == settings
    assert TrainSettings.from_dict({}) == TrainSettings(max_rows=MOST_ROWS)
    with pytest.raises(TrainError, match="'warmup'"):
        TrainSettings.from_dict({"warmup": 3})


def test_the_command_line_needs_no_heavy_package_for_its_help() -> None:
    code = (
        "import sys, haechi.train.cli; "
        "print(sorted({'torch', 'sklearn', 'matplotlib', 'h5py', 'numpy', 'rich'} & sys.modules.keys()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
