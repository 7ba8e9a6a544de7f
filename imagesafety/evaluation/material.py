"""Labelled images: a folder per label, or a table of paths and labels. Read as a stream.

A folder per label: below the source, `accept` (or `benign`) and `reject` have images of that
label, a concept's name those that show it, and `not-` with a concept's name those that do not.
These three words mean the same with every policy: of a concept that is called like one of them,
only a table can say which images show it. Everything below such a folder belongs to it, however
deep, also through symbolic links; names that begin with a dot are left out.

A table is a CSV or Parquet file; `imagesafety.evaluation.label_tables` says what is in it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ACCEPT, BENIGN, REJECT, NOT = "accept", "benign", "reject", "not-"
TABLES = (".csv", ".parquet")
NOTES = (*TABLES, ".json", ".md", ".txt")
"""What may lie beside the folders of a source and is no image."""


class MaterialError(ValueError):
    """Labelled images that can't be read; the message is one line and says where."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What people say of an image: whether it is to be rejected, and which concepts it shows.

    `reject` is None, and a concept is absent, where nobody said.
    """

    reject: bool | None = None
    concepts: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An image file and its labels."""

    path: Path
    labels: Labels


def read_material(source: Path, concepts: Collection[str]) -> Iterator[LabelledFile]:
    """The files of a source one after the other, without listing them.

    `concepts` are those that labels may name. Raises MaterialError, also in the middle.
    """
    from imagesafety.evaluation import label_tables

    if source.is_dir():
        return _labelled_folders(source, concepts)
    if not source.is_file():
        raise MaterialError(f"{shown(source)}: there is no such folder or file")
    if source.suffix.lower() not in TABLES:
        raise MaterialError(f"{shown(source)}: neither a folder nor a .csv or .parquet file")
    return label_tables.read_table(source, concepts)


def count_material(source: Path, concepts: Collection[str]) -> int:
    """How many files there are: what is wrong with the source shows before any work is done.

    Raises MaterialError.
    """
    return sum(1 for _ in read_material(source, concepts))


def unused_columns(source: Path, concepts: Collection[str]) -> tuple[str, ...]:
    """The columns of a table that name neither a label nor one of the concepts."""
    from imagesafety.evaluation import label_tables

    return () if source.is_dir() else label_tables.unused_columns(source, concepts)


def folder_labels(concepts: Collection[str]) -> dict[str, Labels]:
    """What images are labelled that are in a folder of each name.

    A concept called accept, benign or reject has no folders: that of its name would else turn from
    images that are to be rejected into images that show something.
    """
    named = [concept for concept in concepts if concept not in (ACCEPT, BENIGN, REJECT)]
    return {
        **{concept: Labels(concepts={concept: True}) for concept in named},
        **{f"{NOT}{concept}": Labels(concepts={concept: False}) for concept in named},
        ACCEPT: Labels(reject=False),
        BENIGN: Labels(reject=False),
        REJECT: Labels(reject=True),
    }


def subfolders(source: Path) -> list[Path]:
    """The folders right below a source, by name. Raises MaterialError."""
    return [path for path in _inside(source) if path.is_dir()]


def walk(folder: Path, labels: Labels) -> Iterator[LabelledFile]:
    """Everything below a folder that is no folder, with these labels.

    What can't be opened is among it: whoever reads it finds out why. No folder is walked twice,
    whatever links to it. Raises MaterialError for a folder that can't be read.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            status = here.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        waiting.append(Path(entry.path))
                    else:
                        yield LabelledFile(Path(entry.path), labels)
        except OSError as error:
            raise MaterialError(f"{shown(here)}: cannot be read: {error.strerror}") from error


def shown(path: Path | str) -> str:
    """A path as text that can be printed, whatever bytes are in its name."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _inside(source: Path) -> list[Path]:
    try:
        return sorted(path for path in source.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise MaterialError(f"{shown(source)}: cannot be read: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _labelled_folders(source: Path, concepts: Collection[str]) -> Iterator[LabelledFile]:
    """The files of a folder per label, in the order of the folders' names."""
    known = folder_labels(concepts)
    inside = _inside(source)
    folders = [path for path in inside if path.is_dir()]
    for path in inside:
        if path not in folders and path.suffix.lower() not in NOTES:
            raise MaterialError(
                f"{shown(path)}: an image in none of the folders, so without a label"
            )
    for folder in folders:
        if folder.name not in known:
            raise MaterialError(
                f"{shown(folder)}: no label is called so (accept, benign, reject, or a concept of "
                f"the policy: {', '.join(concepts)})"
            )
    if not folders:
        raise MaterialError(f"{shown(source)}: there is no folder accept, reject or of a concept")
    for folder in folders:
        yield from walk(folder, known[folder.name])
