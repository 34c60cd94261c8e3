"""From names to the media to judge."""

from pathlib import Path

import pytest

from haechi.cache.errors import HaechiError
from haechi.predict.media import gather


@pytest.mark.parametrize("columns", ["path,label,split,group", "file_name,label,split,group"])
def test_labels_of_a_manifest_are_not_read(tmp_path: Path, columns: str) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "m.csv").write_text(f"{columns}\na.mp4,Fight,dev,x\n")
    (entry,), notices = gather([str(tmp_path / "m.csv")])
    assert (entry.id, entry.label, entry.split, entry.group) == ("a.mp4", -1, "", "")
    assert notices == []


def test_a_folder_is_searched_whatever_its_layout_is(tmp_path: Path) -> None:
    for name in ("train/Fight/a.mp4", "Fight/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "metadata.csv").write_text("file_name,label\nx.mp4,1\n")
    entries, _ = gather([str(tmp_path)])
    assert [entry.path.name for entry in entries] == ["b.mp4", "a.mp4"]


def test_files_of_stores_and_of_web_servers(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path\nhttps://host/b.mp4?sig=SECRET\n")
    names = ["s3://bucket/a.mp4", "https://host/a.mp4?sig=SECRET", str(tmp_path / "m.csv")]
    entries, _ = gather(names, allow_https=True)
    assert [entry.id for entry in entries] == ["s3://bucket/a.mp4", "https://host/a.mp4", "https://host/b.mp4"]
    for refused in names[1:]:
        with pytest.raises(HaechiError, match="read only with --allow-https") as caught:
            gather([refused])
        assert "SECRET" not in str(caught.value)
