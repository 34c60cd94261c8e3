"""Fits the streams that a head sees to those that its cache has."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from haechi.cache.kinds import IMAGE
from haechi.cache.reader import Cache
from haechi.cache.schema import FRAME_STREAM, NO_MODEL, WINDOW_STREAM, has_features
from haechi.cache.text import bullet_list
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings

# Stream -> the name of its model in messages.
NAMES = {FRAME_STREAM: "CLIP", WINDOW_STREAM: "SlowFast"}


def fit_to_cache(settings: TrainSettings, cache: Cache, *, given: Collection[str]) -> tuple[TrainSettings, list[str]]:
    """The settings without what the cache has no features for, and a notice about each field that was changed.

    `given` are the fields that the user chose, which are not changed. Raises `TrainError` if one of them needs features
    that the cache does not have, or if the head would see nothing.
    """
    changes: dict[str, Any] = {}
    problems, notices = list[str](), list[str]()
    missing = [stream for stream in (FRAME_STREAM, WINDOW_STREAM) if not has_features(cache.settings, stream)]
    for stream, field, without, flag, effect in (
        (FRAME_STREAM, "clip", False, "--no-clip", "the head sees SlowFast alone"),
        (WINDOW_STREAM, "slowfast", "none", "--slowfast none", "the head sees CLIP alone"),
        (FRAME_STREAM, "scenes", False, "--no-scenes", "near-duplicate videos are not searched, only equal files"),
    ):
        wanted = getattr(settings, field)
        if stream not in missing or wanted == without:
            continue
        if field in given:
            problems.append(f"{field} is {wanted!r}, which needs {NAMES[stream]} features: use {flag}")
        else:
            changes[field] = without
            notices.append(f"no {NAMES[stream]} features in this cache: {effect} ({flag})")
    sees_clip, slowfast = changes.get("clip", settings.clip), changes.get("slowfast", settings.slowfast)
    if not problems and not sees_clip and slowfast == "none":
        left = (
            f"images have no {NAMES[WINDOW_STREAM]} features" if settings.media == IMAGE else "nothing is left to see"
        )
        problems.append(f"clip is {settings.clip}, slowfast is {settings.slowfast!r}: {left}")
    if problems:
        made = ", ".join(f"without {NAMES[stream]} (--{stream}-model {NO_MODEL})" for stream in missing)
        raise TrainError(
            f"{cache.name}: extracted {made}, and these settings need more:\n{bullet_list(problems)}\n"
            "or extract the videos with both models into another cache"
        )
    return replace(settings, **changes), notices
