"""The experiments of one call: every combination of a grid's values, each with several seeds."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from haechi.cache.errors import SettingsError
from haechi.cache.text import bullet_list
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One experiment of several."""

    point: dict[str, Any]
    """Its point in the grid: field of `TrainSettings` -> value. Empty without a grid."""
    settings: TrainSettings

    @property
    def name(self) -> str:
        """The point as text, such as `lr=0.0001,dropout=0.2`."""
        return ",".join(f"{name}={value}" for name, value in self.point.items())

    @property
    def folder(self) -> str:
        """The folder of its run, relative to that of all: `lr=0.0001,dropout=0.2/seed-0`, or `seed-0`."""
        return "/".join([self.name, f"seed-{self.settings.seed}"] if self.point else [f"seed-{self.settings.seed}"])


def plan_trials(preset: str | None, given: dict[str, Any], *, grid: Sequence[str], num_seeds: int) -> list[Trial]:
    """All trials, point by point; the first entry of `grid` changes slowest.

    `given` are fields and their values for all trials, None: not given (see `TrainSettings.from_preset`). `grid` has
    texts such as `lr=1e-4,3e-4`. Each point has `num_seeds` consecutive seeds from the given one, or from 0.

    Raises `TrainError` that lists everything wrong with the grid, `SettingsError` for everything wrong with the
    settings of the trials.
    """
    values, problems = _parse(grid)
    problems += [f"{name}: given as a setting too" for name in values if given.get(name) is not None]
    if problems:
        known = ", ".join(name for name in _types() if name not in {"seed", "group_by"})
        raise TrainError(f"--grid:\n{bullet_list(problems)}\nexpected NAME=VALUE,VALUE,… with a NAME of: {known}")
    first_seed = given["seed"] if given.get("seed") is not None else TrainSettings.seed
    trials = []
    for combination in itertools.product(*values.values()):
        point = dict(zip(values, combination, strict=True))
        for seed in range(first_seed, first_seed + num_seeds):
            try:
                settings = TrainSettings.from_preset(**{"preset": preset, **given, **point, "seed": seed})
            except SettingsError as error:
                problems += error.problems
            else:
                trials.append(Trial(point=point, settings=settings))
    if problems:
        raise SettingsError(list(dict.fromkeys(problems)))
    return trials


def _types() -> dict[str, Any]:
    return {field.name: field.type for field in fields(TrainSettings)}


def _parse(grid: Sequence[str]) -> tuple[dict[str, list[Any]], list[str]]:
    """Field -> values, and a line for each thing that is wrong."""
    types, problems = _types(), []
    values: dict[str, list[Any]] = {}
    for text in grid:
        name, equals, listed = text.partition("=")
        if not equals:
            problems.append(f"{text!r}: no `=`")
        elif name not in types:
            problems.append(f"{name!r}: no such setting")
        elif name == "seed":
            problems.append("seed: use --seed and --seeds")
        elif name == "group_by":
            problems.append("group_by: one for all experiments; use --group-by")
        elif name in values:
            problems.append(f"{name}: given twice")
        else:
            values[name] = []
            for word in listed.split(","):
                try:
                    value = PARSERS[types[name]](word)
                except ValueError:
                    problems.append(f"{name}: {word!r} is not {TYPE_NAMES[types[name]]}")
                    continue
                if value in values[name]:
                    problems.append(f"{name}: {word!r} is given twice")
                values[name].append(value)
    return values, problems


def _parse_bool(word: str) -> bool:
    if word not in {"true", "false"}:
        raise ValueError(word)
    return word == "true"


PARSERS: dict[Any, Callable[[str], Any]] = {
    bool: _parse_bool,
    int: int,
    int | None: int,
    float: float,
    float | None: float,
    str: str,
}
TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    int | None: "a whole number",
    float: "a number",
    float | None: "a number",
    str: "a text",
}
