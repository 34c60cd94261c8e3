"""Writes all files of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from haechi.predict.evaluation.evaluation import Evaluation
from haechi.predict.evaluation.media import Media
from haechi.predict.evaluation.output.disagreements_csv import write_disagreements
from haechi.predict.evaluation.output.evaluation_json import write_evaluation, write_scores
from haechi.predict.evaluation.output.exported import ExportedVideo
from haechi.predict.evaluation.output.page import shown_disagreements
from haechi.predict.evaluation.output.page_html import write_page
from haechi.predict.prediction import ScoredWindow
from haechi.train import run_folder
from haechi.train.output.thumbnails import make_thumbnails


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the files say beside the evaluation itself."""

    command: str
    """The command that made the evaluation."""
    media_root: Path | None
    """The folder that ids are relative to; None: the page has no thumbnails."""


def save(folder: Path, evaluation: Evaluation, output: Output) -> None:
    """Write the files of an evaluation into `folder` (see `run_folder`)."""
    write_evaluation(folder / run_folder.EVALUATION_FILE, evaluation)
    write_scores(folder / run_folder.SCORES_FILE, evaluation)
    write_disagreements(folder / run_folder.DISAGREEMENTS_FILE, evaluation)
    ids = [row.id for row in shown_disagreements(evaluation)]
    write_page(
        folder / run_folder.EVALUATION_PAGE,
        evaluation,
        title=f"{evaluation.run.name} on {evaluation.data.name}",
        command=output.command,
        thumbnails=make_thumbnails(ids, output.media_root) if output.media_root is not None else {},
    )


def exported_videos(
    evaluation: Evaluation, media: Media, moments: Mapping[str, Sequence[ScoredWindow]]
) -> list[ExportedVideo]:
    """All videos of an evaluation, labelled or not, for labelling tools; `moments`: id -> its harmful moments."""
    row_of = {id: row for row, id in enumerate(media.ids.tolist())}
    videos = []
    for ids, scored in ((evaluation.ids, evaluation.here), (evaluation.unlabelled_ids, evaluation.unlabelled)):
        rows = np.array([row_of[id] for id in ids.tolist()], np.int64)
        columns = (ids, scored.labels, scored.scores, scored.calibrated, scored.thresholds)
        facts = (media.fps[rows], media.durations_seconds[rows], media.num_frames[rows])
        for id, label, score, calibrated, threshold, fps, seconds, num_frames in zip(
            *(column.tolist() for column in (*columns, *facts)), strict=True
        ):
            videos.append(
                ExportedVideo(
                    id=id,
                    path="",
                    kind=evaluation.run.kind,
                    label=label,
                    score=score,
                    calibrated=calibrated,
                    threshold=threshold,
                    is_harmful=score >= threshold,
                    fps=fps,
                    duration_seconds=seconds,
                    num_frames=num_frames,
                    moments=tuple(moments.get(id, ())),
                )
            )
    return videos
