"""Labelled material: folders, CSV and Parquet, as they should be and as they are."""

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from imagesafety.evaluation.material import (
    LabelledFile,
    Labels,
    MaterialError,
    count_material,
    read_material,
    shown,
    unused_columns,
    walk,
)

CONCEPTS = ("red", "triangle")


def files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def found(source: Path) -> dict[str, Labels]:
    base = source if source.is_dir() else source.parent
    return {
        str(file.path.relative_to(base)): file.labels for file in read_material(source, CONCEPTS)
    }


def refused(source: Path) -> str:
    with pytest.raises(MaterialError) as caught:
        list(read_material(source, CONCEPTS))
    message = str(caught.value)
    assert "\n" not in message
    return message


def table(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_folder_per_label(tmp_path: Path) -> None:
    files(tmp_path, "accept/a", "benign/b", "reject/deep/er/c", "red/d", "not-red/e", "labels.csv")
    files(tmp_path, ".thumbnails/x", "accept/.DS_Store", "red/.hidden/y")
    assert found(tmp_path) == {
        "accept/a": Labels(False),
        "benign/b": Labels(False),
        "reject/deep/er/c": Labels(True),
        "red/d": Labels(None, {"red": True}),
        "not-red/e": Labels(None, {"red": False}),
    }
    assert count_material(tmp_path, CONCEPTS) == 5


def test_a_concept_called_like_a_label_does_not_take_over_its_folder(tmp_path: Path) -> None:
    files(tmp_path, "accept/a", "reject/b")
    concepts = ("reject", "accept", "benign", "red")
    assert [file.labels for file in read_material(tmp_path, concepts)] == [
        Labels(False),
        Labels(True),
    ]
    files(tmp_path, "not-reject/c")
    with pytest.raises(MaterialError, match="not-reject: no label is called so"):
        list(read_material(tmp_path, concepts))
    path = table(tmp_path, "path,label,reject\na,accept,true\n")
    [file] = read_material(path, concepts)
    assert file.labels == Labels(False, {"reject": True})


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["accept/a", "rejekt/b"], "rejekt: no label is called so"),
        (["accept/a", "b.png"], "b.png: an image in none of the folders"),
        (["labels.csv"], "there is no folder accept, reject or of a concept"),
    ],
)
def test_folders_without_a_meaning(tmp_path: Path, names: list[str], says: str) -> None:
    files(tmp_path, *names)
    assert says in refused(tmp_path)


def test_sources_that_are_none(tmp_path: Path) -> None:
    assert "no such folder or file" in refused(tmp_path / "nowhere")
    files(tmp_path, "a.txt")
    assert "neither a folder nor a .csv or .parquet file" in refused(tmp_path / "a.txt")


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    files(tmp_path, "elsewhere/a", "source/accept/b")
    accept = tmp_path / "source" / "accept"
    (accept / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(accept)
    (accept / "self").symlink_to(accept / "self")
    (accept / "gone").symlink_to(tmp_path / "nowhere")
    names = sorted(file.path.name for file in read_material(tmp_path / "source", CONCEPTS))
    assert names == ["a", "b", "gone", "self"]


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "accept").mkdir()
    name = os.fsencode(tmp_path / "accept") + b"/\xff\x01.png"
    os.close(os.open(name, os.O_CREAT))
    [file] = read_material(tmp_path, CONCEPTS)
    assert os.fsencode(file.path) == name
    assert shown(file.path).endswith("accept/\\xff\\x01.png")
    [named] = read_material(table(tmp_path, b"path\naccept/\xff\x01.png\n"), CONCEPTS)
    assert os.fsencode(named.path) == name


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    files(tmp_path, "a/b")
    with pytest.raises(MaterialError, match="cannot be read"):
        list(walk(tmp_path / "a" / "b", Labels()))


def test_csv(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "\ufeffpath,label,red,note,triangle\r\n"
        'a.png,accept,true,"with, comma",0\r\n'
        "\r\n"
        "sub/b.png,REJECT,,,yes\r\n"
        "/abs/c.png,,False\r\n",
    )
    assert list(read_material(path, CONCEPTS)) == [
        LabelledFile(tmp_path / "a.png", Labels(False, {"red": True, "triangle": False})),
        LabelledFile(tmp_path / "sub/b.png", Labels(True, {"triangle": True})),
        LabelledFile(Path("/abs/c.png"), Labels(None, {"red": False})),
    ]
    assert unused_columns(path, CONCEPTS) == ("note",)


def test_columns_that_a_spreadsheet_leaves_empty(tmp_path: Path) -> None:
    path = table(tmp_path, "path,,label, ,\na.png,,reject, ,\n,,,,\nb.png,,accept\n")
    assert found(path) == {"a.png": Labels(True), "b.png": Labels(False)}
    assert unused_columns(path, CONCEPTS) == ()
    # And a data frame, with the numbers of its rows.
    indexed = table(tmp_path, ',path,label,note\n0,a.png,reject,\n1,b.png,accept,"two\nlines"\n')
    assert found(indexed) == {"a.png": Labels(True), "b.png": Labels(False)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column is called `path`"),
        ("file,label\na,accept\n", "no column is called `path`"),
        ("path,red,red\na,1,0\n", "two columns are called 'red'"),
        ("path,label\na,accept\nb,maybe\n", "line 3: label must be accept or reject, not 'maybe'"),
        ("path,red\na,2\n", "line 2: red must be true or false, not '2'"),
        ("path,red\n,1\n", "line 2: there is no path"),
        ("path\na,b\n", "line 2: 2 cells, but there are 1 columns"),
        ("path\na\0b\n", "line 2: "),
        ('path,note\na,\n"b,\nc,"x"\nd,\n', "line 3: ',' expected after"),
        ('path,note\na,\n"b,\nc,\nd,\n', "line 3: a quote is not closed"),
        ('path,note\n"a\nb",\n', "line 2: the path has a line break in it"),
        ('path\n"a"b\n', "line 2: "),
        ('path,"label\na,accept\n', "line 1: a quote is not closed"),
        ("path\n" + "x" * 200_000 + "\n", "line 2: field larger"),
    ],
)
def test_broken_csv(tmp_path: Path, text: str, says: str) -> None:
    message = refused(table(tmp_path, text))
    assert message.startswith(str(tmp_path / "labels.csv"))
    assert says in message


def test_what_is_wrong_at_the_end_of_a_table_shows_when_it_is_counted(tmp_path: Path) -> None:
    rows = "".join(f"{number}.png,accept\n" for number in range(5000))
    path = table(tmp_path, f"path,label\n{rows}last.png,oops\n")
    with pytest.raises(MaterialError, match="line 5002"):
        count_material(path, CONCEPTS)


def parquet(folder: Path, columns: dict[str, Iterable[object]]) -> Path:
    path = folder / "labels.parquet"
    pyarrow.parquet.write_table(
        pa.table({k: v if isinstance(v, pa.Array) else list(v) for k, v in columns.items()}), path
    )
    return path


def test_parquet(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        {
            "path": [b"a\xff.png", b"b.png", b"c.png"],
            "label": ["accept", None, "reject"],
            "red": [True, False, None],
            "triangle": [1.0, float("nan"), 0.0],
            "other": [1, 2, 3],
        },
    )
    assert found(path) == {
        os.fsdecode(b"a\xff.png"): Labels(False, {"red": True, "triangle": True}),
        "b.png": Labels(None, {"red": False}),
        "c.png": Labels(True, {"triangle": False}),
    }
    assert unused_columns(path, CONCEPTS) == ("other",)


def test_broken_parquet(tmp_path: Path) -> None:
    assert "no column is called `path`" in refused(parquet(tmp_path, {"file": ["a"]}))
    wrong = parquet(tmp_path, {"path": ["a", "b"], "red": ["true", "perhaps"]})
    assert "row 2: red must be true or false" in refused(wrong)
    names = pa.array([b"a", b"b"] * 3000 + [b"\xff"], pa.binary()).view(pa.string())
    assert "row 6001: there is text that is not UTF-8" in refused(
        parquet(tmp_path, {"path": names})
    )
    whole = parquet(tmp_path, {"path": ["a.png"] * 1000}).read_bytes()
    for broken in (b"", b"PAR1", whole[:-20], whole[:40] + b"\xff" * 60 + whole[100:]):
        assert "labels.parquet: no Parquet file" in refused(
            table(tmp_path, broken, "labels.parquet")
        )
