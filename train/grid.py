"""Which experiments one call trains: every combination of a grid's values, each with several seeds."""

import itertools
from collections.abc import Callable
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
    """Where it stands in the grid: field of `TrainSettings` -> value. Empty where there is no grid."""
    settings: TrainSettings

    @property
    def name(self) -> str:
        """The point in words, such as `lr=0.0001,dropout=0.2`."""
        return ",".join(f"{name}={value}" for name, value in self.point.items())

    @property
    def folder(self) -> str:
        """Its run's folder under that of all: `lr=0.0001,dropout=0.2/seed-0`, or `seed-0`."""
        return "/".join([self.name, f"seed-{self.settings.seed}"] if self.point else [f"seed-{self.settings.seed}"])


def plan_trials(preset: str, given: dict[str, Any], *, grid: tuple[str, ...], num_seeds: int) -> list[Trial]:
    """All trials, point by point, the first of `grid` changing slowest.

    `given` are fields and values that hold for every trial, None: not given (see `TrainSettings.of_preset`); `grid` is
    texts such as `lr=1e-4,3e-4`. The seeds of a point are the given one, or 0, and those after it.

    Raises `TrainError` that lists everything wrong with the grid, or with the settings that it leads to.
    """
    values, problems = _parse(grid)
    problems += [f"{name}: given as a flag too" for name in values if given.get(name) is not None]
    if problems:
        known = ", ".join(name for name in _types() if name != "seed")
        raise TrainError(f"--grid:\n{bullet_list(problems)}\nexpected NAME=VALUE,VALUE,… with a NAME of: {known}")
    first_seed = given["seed"] if given.get("seed") is not None else TrainSettings.seed
    trials = []
    for combination in itertools.product(*values.values()):
        point = dict(zip(values, combination, strict=True))
        for seed in range(first_seed, first_seed + num_seeds):
            try:
                settings = TrainSettings.of_preset(**{"preset": preset, **given, **point, "seed": seed})
            except SettingsError as error:
                problems += error.problems
            else:
                trials.append(Trial(point=point, settings=settings))
    if problems:
        raise SettingsError(list(dict.fromkeys(problems)))
    return trials


def _types() -> dict[str, Any]:
    return {field.name: field.type for field in fields(TrainSettings)}


def _parse(grid: tuple[str, ...]) -> tuple[dict[str, list[Any]], list[str]]:
    """Field -> values, and what is wrong."""
    types, problems = _types(), []
    values: dict[str, list[Any]] = {}
    for text in grid:
        name, equals, listed = text.partition("=")
        if not equals:
            problems.append(f"{text!r}: no `=`")
        elif name not in types:
            problems.append(f"{name!r}: no such setting")
        elif name == "seed":
            problems.append("seed: say --seed and --seeds")
        elif name in values:
            problems.append(f"{name}: given twice")
        else:
            values[name] = []
            for word in listed.split(","):
                try:
                    value = PARSERS[types[name]](word)
                except ValueError:
                    problems.append(f"{name}: {word!r} is no {KINDS[types[name]]}")
                    continue
                if value in values[name]:
                    problems.append(f"{name}: {word!r} stands there twice")
                values[name].append(value)
    return values, problems


def _truth(word: str) -> bool:
    if word not in {"true", "false"}:
        raise ValueError(word)
    return word == "true"


PARSERS: dict[Any, Callable[[str], Any]] = {
    bool: _truth,
    int: int,
    int | None: int,
    float: float,
    float | None: float,
    str: str,
}
KINDS = {
    bool: "true or false",
    int: "whole number",
    int | None: "whole number",
    float: "number",
    float | None: "number",
    str: "text",
}
