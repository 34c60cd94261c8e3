"""training_set.h5: what a run keeps of its videos, so that an evaluation finds them again in another set.

    /id, /sha256      (M,) text: the labelled videos
    /group            (M,) text: the group in the manifest
    /part             (M,) text: train, val or test; with folds all are train, since the head that is kept saw all
    /scene/descriptor (M, D) int8: scene descriptors, each scaled to the range of int8
    /scene/centre     (D,) float32, and
    /scene/whitening  (D, D) float32: how the mean frame of another video becomes a descriptor

`/scene` is missing where scenes were not compared. It holds no features: about D bytes for each video, 2 MB for 3,866
videos and 51 MB for 100,000 with CLIP's 512 values.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from haechi.cache.errors import CacheError
from haechi.cache.hdf5 import open_hdf5, read_errors
from haechi.train.data.scenes import SceneSpace
from haechi.train.errors import TrainError
from haechi.train.result import Result
from haechi.train.run_folder import TRAINING_SET_FILE, current

FORMAT = "haechi-training-set"
FORMAT_VERSION = 1

COLUMNS = ("id", "sha256", "group", "part")
LARGEST = 127  # of int8
MAX_WIDTH = 1 << 14  # of a descriptor


@dataclass(frozen=True, kw_only=True)
class KnownScenes:
    """The scenes of M videos, in a form that other videos can be compared with."""

    descriptors: np.ndarray
    """(M, D) int8"""
    space: SceneSpace
    similarity_threshold: float
    """Cosine from which two of these videos count as one scene."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """The M labelled videos of a run."""

    ids: np.ndarray
    """(M,) str"""
    sha256: np.ndarray
    """(M,) str: the hash of each video's file."""
    groups: np.ndarray
    """(M,) str: the group in the manifest; empty: none."""
    parts: np.ndarray
    """(M,) str: `train`, `val` or `test`."""
    scenes: KnownScenes | None
    """None: scenes were not compared."""

    @classmethod
    def of(cls, result: Result) -> "TrainingSet":
        """That of a finished run."""
        dataset, scenes = result.plan.dataset, result.plan.grouping.scenes
        known = None
        if scenes.space is not None:
            largest = np.abs(scenes.descriptors).max(axis=1, keepdims=True)  # (M, 1)
            known = KnownScenes(
                descriptors=np.rint(scenes.descriptors / np.where(largest > 0, largest, 1) * LARGEST).astype(np.int8),
                space=scenes.space,
                similarity_threshold=scenes.similarity_threshold,
            )
        return cls(
            ids=dataset.ids,
            sha256=dataset.sha256,
            groups=dataset.groups,
            parts=np.full(len(dataset.ids), "train", dtype=object) if result.folds else result.split.names,
            scenes=known,
        )

    def save(self, path: Path) -> None:
        """Write the file. After an `OSError` (such as a full disk) it may be incomplete: write it in a `run_folder`."""
        columns = dict(zip(COLUMNS, (self.ids, self.sha256, self.groups, self.parts), strict=True))
        with h5py.File(path, "w") as file:
            file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION)
            for name, values in columns.items():
                encoded = np.array([value.encode() for value in values.tolist()], dtype=bytes)
                length = encoded.dtype.itemsize or 1  # HDF5 has no strings of length 0
                _write(file, name, encoded.astype(f"S{length}").astype(h5py.string_dtype("utf-8", length)))
            if self.scenes is not None:
                group, space = file.create_group("scene"), self.scenes.space
                group.attrs.update(
                    similarity_threshold=self.scenes.similarity_threshold, own_similarity=space.own_similarity
                )
                _write(group, "descriptor", self.scenes.descriptors)
                _write(group, "centre", space.centre)
                _write(group, "whitening", space.whitening)

    @classmethod
    def load(cls, run: Path) -> "TrainingSet | None":
        """Read that of a run folder; None if there is none, as in runs of older versions.

        Raises `TrainError` if it is damaged or has another version.
        """
        path = current(run / TRAINING_SET_FILE)
        if not path.exists():
            return None
        try:
            with open_hdf5(path) as file, read_errors(path):
                return _read(file, path)
        except CacheError as error:
            raise TrainError(f"{path}: damaged; train again to evaluate this run") from error


def _write(group: h5py.Group, name: str, values: np.ndarray) -> None:
    """Write a dataset, compressed, with checksums."""
    group.create_dataset(
        name, data=values, compression="gzip", compression_opts=1, shuffle=True, fletcher32=True, track_times=False
    )


def _read(file: h5py.File, path: Path) -> TrainingSet:
    if file.attrs.get("format") != FORMAT or file.attrs.get("format_version") != FORMAT_VERSION:
        raise TrainError(
            f"{path}: not version {FORMAT_VERSION} of {FORMAT}; use the Haechi that wrote it, or train again"
        )
    columns = {name: np.array(file[name].asstr()[()], dtype=object) for name in COLUMNS}
    count, scenes = len(columns["id"]), None
    problems = [
        f"/{name} has {len(column)} rows, expected {count}" for name, column in columns.items() if len(column) != count
    ]
    if "scene" in file:
        group = file["scene"]
        width = min(group["descriptor"].shape[1], MAX_WIDTH)
        expected = {"descriptor": (count, width), "centre": (width,), "whitening": (width, width)}
        problems += [
            f"/scene/{name} has the shape {group[name].shape}, expected {shape}"
            for name, shape in expected.items()
            if group[name].shape != shape
        ]
    if problems:
        raise TrainError(f"{path}: damaged: {'; '.join(problems)}; train again")
    if "scene" in file:
        space = SceneSpace(
            centre=group["centre"][()],
            whitening=group["whitening"][()],
            own_similarity=float(group.attrs["own_similarity"]),
        )
        scenes = KnownScenes(
            descriptors=group["descriptor"][()],
            space=space,
            similarity_threshold=float(group.attrs["similarity_threshold"]),
        )
    return TrainingSet(
        ids=columns["id"], sha256=columns["sha256"], groups=columns["group"], parts=columns["part"], scenes=scenes
    )
