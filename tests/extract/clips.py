"""A tiny CLIP that counts as trained, and caches made with it."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from bench import networks
from haechi.cache.schema import Provenance
from haechi.cache.writer import shard_path, write_shard
from haechi.extract.backbones.openclip import OpenClip
from tests import synthetic

WIDTH = networks.CLIP_WIDTH


def write_clip(folder: Path) -> tuple[str, Path]:
    """Write a configuration with a text tower for open_clip's tokenizer, and weights; return their name and path."""
    name = networks.write_clip_config(folder)
    config = copy.deepcopy(networks.CLIP_CONFIG)
    config["model_cfg"]["text_cfg"]["vocab_size"] = 49408
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(5)
    module = open_clip.create_model(name, load_weights=False)
    module.token_embedding.weight.data.normal_(0, 1)  # so that texts differ by much more than float16 rounds
    torch.save(module.state_dict(), folder / "clip.pt")
    return name, folder / "clip.pt"


def provenance(clip: dict[str, Any], *, weights: str) -> Provenance:
    """The provenance of a cache with this `clip` part in its settings."""
    plain = synthetic.provenance(clip_width=WIDTH)
    return Provenance(
        **{**vars(plain), "settings": {**plain.settings, "clip": clip}, "weights": {**plain.weights, "clip": weights}}
    )


def identity(name: str, weights: Path | str) -> dict[str, Any]:
    """The `clip` part of the settings, as extraction writes it."""
    return OpenClip(model=name, weights=str(weights), device=torch.device("cpu"), dtype=torch.float32).identity


def write_shards(path: Path, videos: dict[str, np.ndarray], source: Provenance, *, per_shard: int = 3) -> Path:
    """Write a cache of videos with CLIP rows (T, `WIDTH`), one per second; labels and splits alternate."""
    path.mkdir(exist_ok=True)
    first = len(list(path.iterdir()))
    items = []
    for i, (id, rows) in enumerate(videos.items()):
        media = synthetic.media(id, label=(1, 0, -1)[i % 3], split=("train", "")[i % 2])
        plain = synthetic.item(media, seed=i, num_frames=1, source=source)
        times = np.arange(len(rows), dtype=np.float32)
        changed = {"clip/features": rows.astype("float16"), "clip/time_seconds": times}
        items.append(synthetic.with_arrays(plain, changed))
    for number, start in enumerate(range(0, len(items), per_shard)):
        write_shard(shard_path(path, first + number), items[start : start + per_shard], [], source)
    return path
