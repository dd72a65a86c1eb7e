"""Class labels that a source gives itself, and the files that hold them: `dataset.json` and `metadata.csv`."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from artifacts.terminal import printable
from imagesets.folder_contents import Contents, ImageFile, Label, class_name
from imagesets.folder_layout import split_family
from imagesets.folder_scan import LABEL_FILES
from imagesets.types import BrokenImageError, ImageSetError

MAX_NAME = 200  # characters of a class name; a longer text is a caption, not a class
MAX_NUMBER = 2**53
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?")
_NUMBERED_FOLDER = re.compile(r"\d{5}")  # StyleGAN's dataset_tool.py puts every 1,000 images into the next one


class LabelError(ValueError):
    """A label is not that of a class; the message is what it is, as in `a list`."""


class LabelReader:
    """Turn the values of a source's labels into `Label`s, each distinct one once."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        """Read class numbers; `names` are the names of the classes 0, 1, … where the source has them."""
        self.names = tuple(class_name(str(name)) for name in names)
        self._known: dict[Any, Label] = {}

    def __call__(self, value: Any) -> Label:
        """Return the label that a value stands for.

        Raises:
            LabelError: If it is neither a class number from 0 nor the name of a class.
        """
        if not isinstance(value, (int, float, str, np.integer)):
            raise LabelError({list: "a list", dict: "an object", type(None): "missing"}.get(type(value), "no number"))
        key = (type(value), value)
        if key not in self._known:
            self._known[key] = self._read(value)
        return self._known[key]

    def _read(self, value: float | str | np.integer) -> Label:
        if isinstance(value, bool):
            raise LabelError("true or false")
        if isinstance(value, str):
            text = value.strip()
            if not _NUMBER.fullmatch(text):
                if not 0 < len(text) <= MAX_NAME or len(text.splitlines()) > 1:
                    raise LabelError("a text that is no class name")
                return 0, class_name(text)
            value = float(text)
        if isinstance(value, float) and not value.is_integer():
            raise LabelError(f"{value:g}, not a whole number")
        number = int(value)
        if not 0 <= number <= MAX_NUMBER:
            raise LabelError(f"{number}, below 0" if number < 0 else f"{number}, which is too large")
        if self.names and number >= len(self.names):
            raise LabelError(f"{number}, but there are {len(self.names)} class names")
        return number, self.names[number] if self.names else str(number)


def apply_label_files(contents: Contents, where: str) -> None:
    """Give the images of a folder or zip the labels of its label files.

    `dataset.json` (StyleGAN) lists `[FILE, CLASS]`; `metadata.csv` and `metadata.jsonl` (Hugging Face) have the
    columns `file_name` and `label`. They name files relative to their own folder. Labels that are no classes are left
    out, which a note states.

    Args:
        contents: What was found; members, notes and counts change.
        where: The source, for messages.

    Raises:
        ImageSetError: If a label file is damaged or contradicts itself.
    """
    seen: set[str] = set()
    for file in sorted(contents.label_files, key=lambda file: (file.path.count("/"), _place(file.path))):
        folder, slash, name = file.path.rpartition("/")
        if folder in seen:
            continue
        shown = f"{printable(file.path)} in {where}"
        found = (_dataset_json if name == "dataset.json" else _metadata)(file, shown)
        if found is None:  # another program's file of this name
            continue
        seen.add(folder)
        contents.left_out -= {f".{name.rpartition('.')[2]}": 1}
        _apply(contents, found, f"{folder}{slash}", printable(file.path))


def _place(path: str) -> tuple[str, int]:
    folder, _, name = path.rpartition("/")
    return folder, LABEL_FILES.index(name)


def _apply(contents: Contents, values: dict[str, Any], prefix: str, shown: str) -> None:
    """Label the members below `prefix` by the values of a label file, {path: value}."""
    inside = [i for i, member in enumerate(contents.members) if member.path.startswith(prefix)]
    members = [contents.members[i] for i in inside]
    labels: list[Label | None] = []
    reader = LabelReader()
    try:
        for member in members:
            value = values.get(member.path.removeprefix(prefix))
            labels.append(None if value is None else reader(value))
    except LabelError as error:
        contents.notes.append(f"no classes from {shown}: a label is {error}")
        labels = [None] * len(members)
    found = sum(label is not None for label in labels)
    if found:
        for i, member, label in zip(inside, members, labels, strict=True):
            if member.label is None:
                contents.members[i] = replace(member, label=label)
        contents.classes = "labels"
        present = {member.path.removeprefix(prefix) for member in members}
        if missing := sum(value is not None and path not in present for path, value in values.items()):
            contents.notes.append(f"{shown} has labels of {missing:,} files that are not there")
        return
    if values and not any(member.path.removeprefix(prefix) in values for member in members):
        contents.notes.append(f"no classes from {shown}: it names none of the {len(members):,} images")
    folders = {member.path.removeprefix(prefix).split("/")[0] for member in members if "/" in member.path}
    if contents.classes == "folders" and folders and all(map(_NUMBERED_FOLDER.fullmatch, folders)):
        contents.classes = "none"
        if len(folders) > 1:
            contents.notes.append("folders that only number the images are not classes")


def name_by_folders(contents: Contents) -> None:
    """Name classes that are numbers after the images' folders, where each class has one folder and each folder one."""
    names: dict[Label, set[str]] = {}
    for member in contents.members:
        if member.label is not None:
            names.setdefault(member.label, set()).add("/".join(member.path.split("/")[-2:-1]))
    folders = [name for found in names.values() for name in found]
    is_one_to_one = len(set(folders)) == len(folders) == len(names) > 1
    numbers = all(label[1] == str(label[0]) for label in names)
    if not is_one_to_one or not numbers or "" in folders or any(map(split_family, folders)):
        return
    if all(map(_NUMBERED_FOLDER.fullmatch, folders)):
        return
    named = {label: (label[0], class_name(next(iter(found)))) for label, found in names.items()}
    contents.members = [
        member if member.label is None else replace(member, label=named[member.label]) for member in contents.members
    ]


def _text(file: ImageFile, shown: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(file.read().decode("utf-8-sig"))
    except (BrokenImageError, ValueError, RecursionError, csv.Error) as error:  # also bytes that are not UTF-8
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)[:120]
        raise ImageSetError(f"{shown} cannot be read ({reason}); repair it, or remove it to load no labels") from error


def _dataset_json(file: ImageFile, shown: str) -> dict[str, Any] | None:
    """Return {path: value} of StyleGAN's label file, empty if its labels are null; None if it has no labels field."""
    document = _text(file, shown, json.loads)
    if not isinstance(document, dict) or "labels" not in document:
        return None
    entries = document["labels"]
    if entries is None:
        return {}
    if isinstance(entries, dict):
        entries = list(entries.items())
    if not isinstance(entries, list):
        raise ImageSetError(f"{shown}: `labels` is not a list of [file, class]; repair it, or remove it")
    values: dict[str, Any] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not isinstance(entry[0], str):
            raise ImageSetError(f"{shown}: entry {number} of `labels` is not [file, class]; repair it, or remove it")
        _add(values, entry[0], entry[1], shown)
    return values


def _metadata(file: ImageFile, shown: str) -> dict[str, Any] | None:
    """Return {file_name: label} of a Hugging Face metadata file; None if it has no such columns."""
    parse: Callable[[str], list[Any]]
    if file.path.endswith(".csv"):
        parse = lambda text: list(csv.DictReader(io.StringIO(text, newline="")))  # noqa: E731
    else:
        parse = lambda text: [json.loads(line) for line in text.splitlines() if line.strip()]  # noqa: E731
    rows = _text(file, shown, parse)
    values: dict[str, Any] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str) or "label" not in row:
            return None
        _add(values, row["file_name"], row["label"] if row["label"] != "" else None, shown)
    return values or None


def _add(values: dict[str, Any], path: str, value: Any, shown: str) -> None:
    path = path.replace("\\", "/").removeprefix("./")
    if path in values and values[path] != value:
        raise ImageSetError(f"{shown} gives {printable(path)[:80]} two labels; repair it")
    values[path] = value
