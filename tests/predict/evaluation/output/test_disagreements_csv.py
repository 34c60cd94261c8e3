"""disagreements.csv, which `haechi train --labels` reads back as it is."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from haechi.cache.reader import Cache
from haechi.cache.writer import shard_path, write_shard
from haechi.predict.evaluation.disagreements import find_disagreements
from haechi.predict.evaluation.output.disagreements_csv import write_disagreements
from haechi.predict.evaluation.scored import Scored
from haechi.train.data.relabel import NewLabels
from tests import synthetic

IDS = ["-a.mp4", "=b.mp4", "'-c.mp4", "clips/d,e.mp4", "f\u202e.mp4", "g.mp4"]
LABELS = [1, 0, 1, 0, 1, 0]
GROUPS = ["camera 1", "camera 1", "@2", "", "", "camera 3"]


def evaluation(scores: list[float]) -> SimpleNamespace:
    """What `write_disagreements` uses of an `Evaluation`."""
    here = Scored(
        scores=np.array(scores),
        labels=np.array(LABELS, dtype=np.int8),
        thresholds=np.full(len(scores), 0.5),
        calibrated=np.array(scores) ** 2,
        groups=np.array(GROUPS, dtype=object),
    )
    return SimpleNamespace(ids=np.array(IDS, dtype=object), here=here, disagreements=find_disagreements(here))


def test_columns_and_order(tmp_path: Path) -> None:
    write_disagreements(tmp_path / "d.csv", evaluation([0.1 + 0.2, 0.2, 0.9, 0.99, 0.1, 0.3]))  # type: ignore[arg-type]
    with (tmp_path / "d.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["f\u202e.mp4", "clips/d,e.mp4", "'-a.mp4"]
    assert rows[2] == {
        "id": "'-a.mp4",
        "label": "1",
        "score": "0.30000000000000004",
        "calibrated": repr((0.1 + 0.2) ** 2),
        "threshold": "0.5",
        "prediction": "0",
        "self_confidence": repr((0.1 + 0.2) ** 2),
        "likely_label_error": "1",
    }
    assert [row["likely_label_error"] for row in rows] == ["1", "1", "1"]


def test_without_disagreements_there_is_a_header_alone(tmp_path: Path) -> None:
    write_disagreements(tmp_path / "d.csv", evaluation([0.9, 0.1, 0.9, 0.1, 0.9, 0.1]))  # type: ignore[arg-type]
    assert (tmp_path / "d.csv").read_text().startswith("id,label,score,")
    assert len((tmp_path / "d.csv").read_text().splitlines()) == 1


def test_train_reads_it_as_it_is(tmp_path: Path) -> None:
    media = [
        synthetic.media(id, label=label, group=group) for id, label, group in zip(IDS, LABELS, GROUPS, strict=True)
    ]
    (tmp_path / "cache").mkdir()
    items = [synthetic.item(each, seed=i) for i, each in enumerate(media)]
    write_shard(shard_path(tmp_path / "cache", 0), items, [], synthetic.provenance())
    write_disagreements(tmp_path / "d.csv", evaluation([0.3, 0.6, 0.1, 0.2, 0.6, 0.1]))  # type: ignore[arg-type]
    opened = Cache.open(tmp_path / "cache")
    new = NewLabels.read(opened, tmp_path / "d.csv", keep_unlisted=True)
    assert (new.unused, len(new.kept), new.replaced) == ([], 3, ["label"])
    for name in ("label", "split", "group"):
        np.testing.assert_array_equal(new.media[name], opened.media[name])
    (columns,) = new.notes
    assert columns == (
        "columns not used: 'calibrated', 'likely_label_error', 'prediction', 'score', 'self_confidence', 'threshold'"
    )
    text = (tmp_path / "d.csv").read_text()
    (tmp_path / "d.csv").write_text(text.replace("'-a.mp4,1,", "'-a.mp4,0,"))  # the user corrects the label
    new = NewLabels.read(opened, tmp_path / "d.csv", keep_unlisted=True)
    assert dict(zip(IDS, new.media["label"].tolist(), strict=True)) == dict(zip(IDS, [0, *LABELS[1:]], strict=True))
