"""The settings of stage 1 that make the features a head was trained on."""

from pathlib import Path
from typing import Any

from haechi.cache.errors import SettingsConflictError
from haechi.cache.schema import STREAMS, has_features
from haechi.extract import pixel_aspect
from haechi.extract.backbones.weights import LOCAL_MODEL, QUICKGELU
from haechi.extract.settings import SAMPLING_FIELDS, ExtractSettings
from haechi.train.model.checkpoint import Checkpoint


def extract_settings(model: Checkpoint, changes: dict[str, Any], path: Path) -> ExtractSettings:
    """The settings that make the head's features, as far as they are known before the backbones are loaded.

    `changes` are fields of `ExtractSettings`, `path` names the run in errors. For a CLIP of the user's own whose folder
    is not among the changes, the settings name the hash of its configuration: see `refuse_unnamed_clip`.
    """
    features = model.features["settings"]
    settings = {
        **_sampling_fields(features.get("sampling"), path),
        "store": features["store"],
        "pixel_aspect": pixel_aspect.of_settings(features),
        "clip_model": features["clip"]["model"].removesuffix(QUICKGELU),
        "slowfast_model": features["slowfast"]["model"],
        **{
            f"{stream}_weights": model.features[f"{stream}_weights"]
            for stream in STREAMS
            if has_features(features, stream)
        },
    }
    return ExtractSettings().changed(**settings | changes)


def refuse_unnamed_clip(settings: ExtractSettings, model: Checkpoint, path: Path) -> None:
    """Raise `SettingsConflictError` if the settings do not name the folder of the CLIP of the user's own."""
    needed = model.features["settings"]["clip"]["model"].removesuffix(QUICKGELU)
    if needed.startswith(LOCAL_MODEL) and settings.clip_model == needed:
        raise SettingsConflictError(
            f"{path}: its features come from a CLIP of your own, with an open_clip_config.json of SHA-256 "
            f"{needed.removeprefix(LOCAL_MODEL)[:12]}…; name its folder: --clip-model local-dir:PATH"
        )


def _sampling_fields(sampling: Any, path: Path) -> dict[str, Any]:
    """The fields of `ExtractSettings` that sample like `sampling`, an entry of a cache's settings."""
    name = sampling.get("name") if isinstance(sampling, dict) else None
    if isinstance(name, str) and name in SAMPLING_FIELDS:
        fields = {field: sampling.get(field) for field in SAMPLING_FIELDS[name]}
        if all(isinstance(value, int | float) for value in fields.values()):
            return {"sampling": name, **fields}
    raise SettingsConflictError(
        f"{path}: its features are sampled as {sampling!r}, which this version of Haechi does not support; use the "
        "program that made them, or train on features made by `haechi extract`"
    )
