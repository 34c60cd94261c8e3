import pytest

from haechi.cache.errors import SettingsError
from haechi.train.errors import TrainError
from haechi.train.grid import Trial, plan_trials
from haechi.train.settings import TrainSettings


def plan(*grid: str, num_seeds: int = 1, **given: object) -> list[Trial]:
    return plan_trials("model4", given, grid=grid, num_seeds=num_seeds)


def test_every_combination_with_every_seed() -> None:
    trials = plan("lr=1e-4,3e-4", "dropout=0.2,0.4", num_seeds=2, seed=3, epochs=5)
    assert [trial.folder for trial in trials] == [
        f"lr={lr},dropout={dropout}/seed-{seed}" for lr in (0.0001, 0.0003) for dropout in (0.2, 0.4) for seed in (3, 4)
    ]
    assert trials[-1].point == {"lr": 3e-4, "dropout": 0.4}
    assert trials[-1].settings == TrainSettings(lr=3e-4, dropout=0.4, seed=4, epochs=5)


def test_seeds_alone_and_nothing_at_all() -> None:
    assert [trial.folder for trial in plan(num_seeds=3)] == ["seed-0", "seed-1", "seed-2"]
    assert plan(lr=None) == [Trial(point={}, settings=TrainSettings())]


def test_values_take_the_type_of_their_field() -> None:
    trials = plan("clip=true,false", "num_layers=1", "slowfast=pooled", "pos_weight=1", "preset=model4,network")
    assert [trial.settings.clip for trial in trials] == [True, True, False, False]
    assert [trial.settings.preset for trial in trials] == ["model4", "network"] * 2
    assert [trial.settings.projection for trial in trials] == [0, 256] * 2
    assert (trials[0].settings.num_layers, trials[0].settings.slowfast, trials[0].settings.pos_weight) == (
        1,
        "pooled",
        1,
    )


def test_everything_wrong_with_a_grid_is_reported_at_once() -> None:
    grid = [
        "lr",
        "group_by=a",
        "warmup=3",
        "epochs=1,two",
        "clip=yes",
        "dropout=0.1,0.10",
        "dropout=0.2",
        "seed=1,2",
        "batch_size=4",
    ]
    with pytest.raises(TrainError) as caught:
        plan(*grid, batch_size=8)
    for text in (
        "'lr': no `=`",
        "'warmup': no such setting",
        "epochs: 'two' is not a whole number",
        "clip: 'yes' is not true or false",
        "dropout: '0.10' is given twice",
        "dropout: given twice",
        "seed: use --seed and --seeds",
        "group_by: one for all experiments; use --group-by",
        "batch_size: given as a setting too",
        "num_layers",  # among the names that are possible
    ):
        assert text in str(caught.value)


def test_each_setting_out_of_range_is_reported_once() -> None:
    with pytest.raises(SettingsError) as caught:
        plan("lr=0,1", "dropout=2,0.5", num_seeds=2, epochs=0)
    assert [problem.partition(",")[0] for problem in caught.value.problems] == [
        "dropout is 2.0",
        "epochs is 0",
        "lr is 0.0",
    ]
