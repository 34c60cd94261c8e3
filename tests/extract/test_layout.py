"""Folders as datasets come, and manifests as people have them: splits, classes, labels, groups, metadata."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import haechi.cli
from haechi.cache.errors import SettingsError
from haechi.cache.text import harmless
from haechi.extract.api import extract_features
from haechi.extract.layout import SPLIT_FOLDERS
from haechi.extract.manifest import Manifest, ManifestError, read_manifest, read_manifest_paths


def touch(folder: Path, *names: str) -> Path:
    """Make empty files: reading a manifest opens no video."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def rows(manifest: Manifest) -> list[tuple[str, int, str]]:
    return [(entry.id, entry.label, entry.split) for entry in manifest.entries]


def refused(data: Path, **options: object) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(data, **options)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.fixture
def rwf(tmp_path: Path) -> Path:
    """As RWF-2000."""
    parts = [f"{split}/{name}" for split in ("train", "val") for name in ("Fight", "NonFight")]
    return touch(tmp_path / "rwf", *(f"{part}/fi{i}_{i}.avi" for part in parts for i in range(2)))


def test_splits_with_class_folders(rwf: Path) -> None:
    manifest = read_manifest(rwf, positive="fight")
    assert rows(manifest) == [
        ("train/Fight/fi0_0.avi", 1, "train"),
        ("train/Fight/fi1_1.avi", 1, "train"),
        ("train/NonFight/fi0_0.avi", 0, "train"),
        ("train/NonFight/fi1_1.avi", 0, "train"),
        ("val/Fight/fi0_0.avi", 1, "val"),
        ("val/Fight/fi1_1.avi", 1, "val"),
        ("val/NonFight/fi0_0.avi", 0, "val"),
        ("val/NonFight/fi1_1.avi", 0, "val"),
    ]
    assert manifest.notices == (
        "2 splits, 2 classes: Fight = harmful, NonFight = safe (4 harmful, 4 safe; 4 train, 4 val)",
    )


@pytest.mark.parametrize("positive", [(), ("train",), ("TRAIN", "val")])
def test_a_split_is_never_taken_for_a_class(rwf: Path, positive: tuple[str, ...]) -> None:
    text = refused(rwf, positive=positive)
    assert "'Fight', 'NonFight'" in text
    assert "--positive NAME" in text if not positive else "'train' is a split and not a class" in text.lower()
    assert text.count("  - ") == max(len(positive), 1)


def test_flat_class_folders_and_several_positives(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "Violence/a.mp4", "weapons/b.mp4", "Normal/deep/c.mp4", "violence/d.mp4", "e.mp4")
    manifest = read_manifest(data, positive=["VIOLENCE", "Weapons"])
    assert rows(manifest) == [
        ("Normal/deep/c.mp4", 0, ""),
        ("Violence/a.mp4", 1, ""),
        ("e.mp4", -1, ""),
        ("violence/d.mp4", 1, ""),
        ("weapons/b.mp4", 1, ""),
    ]
    assert manifest.notices[-1].startswith(
        "4 classes: Violence = harmful, violence = harmful, weapons = harmful, Normal = safe (3 harmful, 1 safe, 1 unl"
    )
    text = refused(data, positive=["war", "weapons", "arms"])
    assert "no class folder 'war' with media; there are: 'Normal', 'Violence', 'violence', 'weapons'" in text
    assert "no class folder 'arms' with media" in text
    assert "'weapons' with" not in text


@pytest.mark.parametrize("names", [("HARMFUL", "Safe"), ("harmful", "SAFE")])
def test_harmful_and_safe_in_any_case(tmp_path: Path, names: tuple[str, str]) -> None:
    data = touch(tmp_path / "d", *(f"Training/{name}/a.mp4" for name in names), *(f"TEST/{n}/b.mp4" for n in names))
    assert {(entry.label, entry.split) for entry in read_manifest(data).entries} == {
        (1, "train"),
        (0, "train"),
        (1, "test"),
        (0, "test"),
    }
    flat = touch(tmp_path / "flat", *(f"{name}/a.mp4" for name in names), "weapon/a.mp4")
    assert "'harmful' would be safe, because --positive does not name it" in refused(flat, positive="weapon")


@pytest.mark.parametrize("name", [*SPLIT_FOLDERS, *map(str.upper, SPLIT_FOLDERS)])
def test_names_of_split_folders(tmp_path: Path, name: str) -> None:
    (entry,) = read_manifest(touch(tmp_path / "d", f"{name}/safe/a.mp4")).entries
    assert entry.split == SPLIT_FOLDERS[name.lower()]


def test_files_of_splits_without_class_folders_are_unlabelled(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "train/a.mp4", "val/b.mp4", "c.mp4")
    manifest = read_manifest(data)
    assert rows(manifest) == [("c.mp4", -1, ""), ("train/a.mp4", -1, "train"), ("val/b.mp4", -1, "val")]
    assert manifest.notices == ("2 splits, no classes (3 unlabelled; 1 train, 1 val, 1 in no split)",)
    assert "'train' is a split and not a class, and all its files would be harmful; the classes in it are: noth" in (
        refused(data, positive="train")
    )


def test_splits_beside_classes_are_explained(rwf: Path) -> None:
    text = refused(touch(rwf, "Fight/x.avi", "trian/Fight/x.avi"), positive="Fight")
    assert "folders named like splits, 'train', 'val', stand beside 'Fight', 'trian'" in text
    assert "train/CLASS" in text
    assert "did you mean 'train' by 'trian'?" in text
    assert "did you mean" not in refused(touch(rwf.parent / "d", "test/a.mp4", "harmful/b.mp4"))


@pytest.mark.parametrize("positive", [(), ("rwf",)])
def test_splits_one_folder_deeper_are_not_guessed(rwf: Path, positive: tuple[str, ...]) -> None:
    text = refused(rwf.parent, positive=positive)
    assert "'rwf' is the only folder, and the split folders 'train', 'val' stand in it: give that folder" in text


@pytest.mark.parametrize("positive", [(), ("Violence",)])
def test_classes_one_folder_deeper_are_not_guessed(tmp_path: Path, positive: tuple[str, ...]) -> None:
    """The archive of RLVS has one folder around its classes; as a class, all its files would have one label."""
    data = touch(tmp_path / "d", "Real Life/Violence/V_1.mp4", "Real Life/NonViolence/NV_1.mp4")
    text = refused(data, positive=positive)
    assert "'Real Life' is the only folder, and 'NonViolence', 'Violence' stand in it" in text
    assert ".../Real Life" in text
    assert "the only folder" not in refused(touch(data, "other/a.mp4"))


def test_splits_below_classes_stay_what_they_were(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "harmful/train/a.mp4", "safe/train/b.mp4", "safe/test/c.mp4")
    assert [entry.label for entry in read_manifest(data).entries] == [1, 0, 0]


def test_a_metadata_file_is_the_manifest(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "clips/a.mp4", "clips/b.mp4", "c.mp4", "metadata.txt")
    write(data, "file_name,label,caption\nclips/a.mp4,Fight,x\nclips/b.mp4,Dance,y\n", "metadata.csv")
    manifest = read_manifest(data, positive_labels="fight")
    assert rows(manifest) == [("clips/a.mp4", 1, ""), ("clips/b.mp4", 0, "")]
    assert all(entry.path.exists() for entry in manifest.entries)
    assert manifest.notices == (
        "read from 'metadata.csv'",
        "columns not used: 'caption'",
        "2 labels: Fight = harmful, Dance = safe (1 harmful, 1 safe)",
        "files without a row in 'metadata.csv', left out: 1\n  - 'c.mp4'",
    )
    text = refused(data)
    assert "labels in the file: 'Fight' 1 row, 'Dance' 1 row" in text
    assert "--positive-label NAME" in text
    assert "use --positive-label" in refused(data, positive="clips", positive_labels="fight")
    with pytest.raises(ManifestError, match="no label 'war' in the file; there are: 'Dance', 'Fight'"):
        read_manifest(data, positive_labels="war")


def test_a_metadata_file_in_each_split(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "train/a.mp4", "train/x/b.mp4", "validation/a.mp4", "test/hidden.mp4")
    write(data, "file_name,label\na.mp4,1\nx/b.mp4,\n", "train/metadata.csv")
    write(data, '{"file_name": "a.mp4", "label": false}\n{"file_name": "A.mp4"}\n', "validation/metadata.jsonl")
    manifest = read_manifest(data)
    assert rows(manifest) == [
        ("train/a.mp4", 1, "train"),
        ("train/x/b.mp4", -1, "train"),
        ("validation/a.mp4", 0, "val"),
        ("validation/A.mp4", -1, "val"),
    ]
    files = "'train/metadata.csv', 'validation/metadata.jsonl'"
    assert manifest.notices == (
        f"read from {files}",
        "2 splits, 2 labels: 1 = harmful, false = safe (1 harmful, 1 safe, 2 unlabelled; 2 train, 2 val)",
        f"files without a row in {files}, left out: 1\n  - 'test/hidden.mp4'",
        "missing files: 1 (failures, unless the cache holds them already); 1 is there under another spelling\n"
        "  - validation/metadata.jsonl, line 2: 'validation/A.mp4' is there as 'validation/a.mp4': "
        "other capital letters",
    )
    write(data, "file_name,label\na.mp4,1\na.mp4,2\n", "train/metadata.csv")
    text = refused(data)
    assert "train/metadata.csv, line 3: label is '2'" in text
    assert "train/metadata.csv, line 3: id 'train/a.mp4' is already on train/metadata.csv, line 2" in text


def test_metadata_without_labels_leaves_them_to_the_folders(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "train/Fight/a.mp4", "train/Normal/b.mp4")
    write(data, "file_name,caption\nFight/a.mp4,x\n", "train/metadata.csv")
    manifest = read_manifest(data, positive="fight")
    assert rows(manifest) == [("train/Fight/a.mp4", 1, "train"), ("train/Normal/b.mp4", 0, "train")]
    assert manifest.notices[0] == "'train/metadata.csv' is not used: it has no column label, split or group"
    write(data, "file_name,group\nFight/a.mp4,x\nNormal/b.mp4,y\n", "train/metadata.csv")
    assert rows(read_manifest(data, positive="fight")) == rows(manifest)
    assert [entry.group for entry in read_manifest(data, positive="fight").entries] == ["x", "y"]
    assert "'Fight', 'Normal' are not called harmful or safe" in refused(data)


def test_metadata_may_list_files_outside_of_the_folder_which_have_no_class(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "train/Fight/a.mp4", "../other/b.mp4")
    elsewhere = tmp_path / "other" / "b.mp4"
    write(data, f"file_name,group\ntrain/Fight/a.mp4,x\n../other/b.mp4,y\n{elsewhere},z\n", "metadata.csv")
    manifest = read_manifest(data, positive="fight")
    assert rows(manifest) == [
        ("train/Fight/a.mp4", 1, "train"),
        ("../other/b.mp4", -1, ""),
        (str(elsewhere), -1, ""),
    ]
    assert "1 split, 1 class: Fight = harmful (1 harmful, 2 unlabelled; 1 train, 2 in no split)" in manifest.notices


def test_an_error_says_which_metadata_file_is_not_used(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "Fight/a.mp4")
    write(data, "file_name,category\nFight/a.mp4,fight\n", "metadata.csv")
    assert "'metadata.csv' is not used: it has no column label, split or group" in refused(data)


def test_two_metadata_files_for_the_same_files_are_refused(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "train/a.mp4")
    write(data, "file_name,label\ntrain/a.mp4,1\n", "metadata.csv")
    write(data, "file_name,label\na.mp4,1\n", "train/metadata.csv")
    assert "several metadata files for the same files: 'metadata.csv', 'train/metadata.csv'" in refused(data)
    (data / "train" / "metadata.csv").rename(data / "metadata.jsonl")
    write(data, '{"file_name": "train/a.mp4", "label": 1}', "metadata.jsonl")
    assert "'metadata.csv', 'metadata.jsonl'; keep one" in refused(data)


@pytest.mark.parametrize("content", ["path,label\na.mp4,1\n", "", '"', "file_name\nb.mp4\n"])
def test_other_metadata_files_change_nothing(tmp_path: Path, content: str) -> None:
    data = touch(tmp_path / "d", "harmful/a.mp4")
    write(data, content, "metadata.csv")
    assert rows(read_manifest(data)) == [("harmful/a.mp4", 1, "")]


def test_file_name_stands_for_path_in_any_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    manifest = read_manifest(write(tmp_path, "file_name,label\na.mp4,1\n./b.mp4,0\n"))
    assert (rows(manifest), manifest.notices) == ([("a.mp4", 1, ""), ("b.mp4", 0, "")], ())
    both = read_manifest(write(tmp_path, "path,file_name\na.mp4,x.mp4\n"))
    assert (rows(both), both.notices) == ([("a.mp4", -1, "")], ("columns not used: 'file_name'",))
    assert "line 2: path is empty" in refused(write(tmp_path, "path,file_name\n,x.mp4\n"))


LABELS = "path,label\na.mp4,{}\nb.mp4,{}\n"


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("YES", "No"), ("1.0", "0.0"), ("Harmful", "SAFE")])
def test_labels_in_other_words(tmp_path: Path, yes: str, no: str) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    assert [entry.label for entry in read_manifest(write(tmp_path, LABELS.format(yes, no))).entries] == [1, 0]


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("1.0", "0.0"), ("1", "0"), ('"Yes"', '"no"')])
def test_labels_of_json(tmp_path: Path, yes: str, no: str) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    text = f'{{"path": "a.mp4", "label": {yes}}}\n{{"path": "b.mp4", "label": {no}}}\n'
    assert [entry.label for entry in read_manifest(write(tmp_path, text, "m.jsonl")).entries] == [1, 0]


def test_labels_named_by_the_user(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    file = write(tmp_path, "path,label,split\na.mp4,Fight,train\nb.mp4,Dance,test\nc.mp4,,\n")
    manifest = read_manifest(file, positive_labels=["fight"])
    assert [entry.label for entry in manifest.entries] == [1, 0, -1]
    assert manifest.notices == (
        "2 splits, 2 labels: Fight = harmful, Dance = safe (1 harmful, 1 safe, 1 unlabelled; 1 train, 1 test, "
        "1 in no split)",
    )
    assert "for the labels in a file there is --positive-label" in refused(file, positive="fight")
    assert "no label 'x' in the file; there are: 'Dance', 'Fight'" in refused(file, positive_labels="x")
    folder = touch(tmp_path / "d", "Fight/a.mp4")
    text = refused(folder, positive="war", positive_labels="fight")
    assert "no class folder 'war'" in text
    assert "for class folders there is --positive" in text


def test_unknown_labels_are_counted_once(tmp_path: Path) -> None:
    text = "path,label\n" + "".join(f"{i}.mp4,{('Fight', 'NonFight', '')[i % 3]}\n" for i in range(3000))
    lines = refused(write(tmp_path, text)).splitlines()
    assert lines[0].endswith("wrong in 2 places:")
    assert lines[1] == "  - line 2: label is 'Fight', expected 1, harmful, true or yes; 0, safe, false or no; or empty"
    assert lines[3] == "labels in the file: 'Fight' 1,000 rows, 'NonFight' 1,000 rows, empty 1,000 rows"


@pytest.mark.parametrize(("separator", "name"), [(";", "';'"), ("\t", "tab"), ("|", "'|'")])
def test_other_separators_are_read_and_named(tmp_path: Path, separator: str, name: str) -> None:
    touch(tmp_path, "a,1.mp4", "b.mp4")
    text = 'path,label\n"a#1.mp4",1\nb.mp4,0\n'.replace(",", separator).replace("#", ",")
    for file in ("m.csv", "m.tsv"):
        manifest = read_manifest(write(tmp_path, "\ufeff" + text, file))
        assert [(entry.id, entry.label) for entry in manifest.entries] == [("a,1.mp4", 1), ("b.mp4", 0)]
        assert manifest.notices == (f"the columns of '{file}' are separated by {name}",)
    assert [
        entry.label for entry in read_manifest(write(tmp_path, f'"path"{separator}"label"\nb.mp4{separator}1')).entries
    ]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("path;label,split", "separated by ',' and ';': use commas alone"),
        ("path,label;split", "separated by ',' and ';'"),
        ("path\tlabel;split", "separated by ';' and tab"),
        ("file;label", "must name the column 'path' (and may name label, split, group, id); got 'file', 'label'"),
    ],
)
def test_separators_that_are_not_clear_are_named(tmp_path: Path, header: str, expected: str) -> None:
    assert expected in refused(write(tmp_path, f"{header}\na.mp4;1\n"))


def test_ids_of_our_own_csv_files_come_back(tmp_path: Path) -> None:
    ids = ["-abc.mp4", "=1.mp4", "+1", "@x.mp4", "'-abc.mp4", "''=1", "'90s.mp4", "'"]
    touch(tmp_path, *ids)
    with (tmp_path / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "id", "group"], *[[harmless(id)] * 3 for id in ids]])
    entries = read_manifest(tmp_path / "m.csv").entries
    assert [entry.id for entry in entries] == ids
    assert [entry.group for entry in entries] == ids
    assert [entry.path.name for entry in entries] == ids
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"path": id}) + "\n" for id in ids))
    assert [entry.id for entry in read_manifest(tmp_path / "m.jsonl").entries] == ids


def test_missing_files_that_are_there_under_another_spelling(tmp_path: Path) -> None:
    touch(tmp_path, "clips/a.mp4", "cafe\u0301.mp4", "'-x.mp4", "space.mp4 ")
    paths = [r"clips\a.mp4", r"D:\data\clips\a.mp4", "caf\u00e9.mp4", "'-x.mp4", "space.mp4", "gone.mp4"]
    (notice,) = read_manifest(write(tmp_path, "path\n" + "\n".join(paths) + "\n")).notices
    first, *lines = notice.splitlines()
    assert first == (
        "missing files: 6 (failures, unless the cache holds them already); 5 are there under another spelling"
    )
    assert lines == [
        r"  - line 2: 'clips\a.mp4' is there as 'clips/a.mp4': use / in paths",
        r"  - line 3: 'D:\data\clips\a.mp4' is there as 'clips/a.mp4': use relative paths",
        "  - line 4: 'caf\u00e9.mp4' is there as 'cafe\u0301.mp4': another Unicode form of the same letters (NFC, NFD)",
        "  - line 5: '-x.mp4' is there as ''-x.mp4': an apostrophe in front (in CSV twice, before = + - @)",
        "  - line 6: 'space.mp4' is there as 'space.mp4 ': a space at the start or end of a name",
        "  - line 7: 'gone.mp4'",
    ]


def test_groups_by_a_regular_expression(rwf: Path, tmp_path: Path) -> None:
    manifest = read_manifest(rwf, positive="fight", group_by=r"/(fi\d+)_")
    assert [entry.group for entry in manifest.entries] == ["fi0", "fi1"] * 4
    assert manifest.notices[-1] == "2 groups; largest: 'fi0' 4 files, 'fi1' 4 files"
    touch(tmp_path, "a_1.mp4", "b.mp4", "c_1.mp4")
    file = write(tmp_path, "path,group\na_1.mp4,a\nb.mp4,mine\nc_1.mp4,\n")
    manifest = read_manifest(file, group_by="(.*)_")
    assert [entry.group for entry in manifest.entries] == ["a", "mine", "c"]
    assert "line 2, id 'a_1.mp4': group is 'a', and group_by gives 'a_1'" in refused(file, group_by="^[a-z]_1")
    assert "matches none of the ids" in refused(file, group_by="camera")
    with pytest.raises(SettingsError, match="is not a regular expression"):
        read_manifest(file, group_by="(")


def test_predict_reads_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    file = write(tmp_path, "path,label,split,labels,id\na.mp4,Fight,dev,x,a\n")
    manifest = read_manifest_paths(file)
    assert rows(manifest) == [("a", -1, "")]
    assert manifest.notices == ("columns not used: 'labels'",)
    with pytest.raises(ManifestError, match="line 1: unknown column 'labels'"):
        read_manifest(file)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(haechi.cli.main, [str(argument) for argument in arguments])


def test_flags(rwf: Path, tmp_path: Path) -> None:
    done = call("validate", rwf, "--out", tmp_path / "v.csv", "--positive", "FIGHT", "--group-by", r"fi\d+")
    assert "note: 2 splits, 2 classes: Fight = harmful, NonFight = safe" in done.output
    assert "note: 2 groups; largest: 'fi0' 4 files" in done.output
    assert "empty_file" in done.output
    done = call("extract", rwf, "--out", tmp_path / "c", "--group-by", "fi(")
    assert done.exit_code == 2
    assert "is not a regular expression" in done.output
    done = call("extract", rwf, "--out", tmp_path / "c", "--positive", "train", "--positive", "x")
    assert done.exit_code == 1
    assert "'train' is a split and not a class" in done.output
    assert "no class folder 'x'" in done.output
    assert not (tmp_path / "c").exists()
    with pytest.raises(ManifestError, match="no label 'x'"):
        extract_features(write(tmp_path, "path,label\na,1\n"), tmp_path / "c", positive_labels="x")
