"""Names of classes in the model's order, and the other words that labels may call them by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import DatasetError
from datasets.text_file import text_from_file

_SYNSET = re.compile(r"(n\d{8})[\s,:]+(\S.*)")  # a line of ImageNet's synset_words.txt
_NUMBERED = re.compile(r"(\d{1,9})(?:\s*[:,;\t]\s*|\s+)(\S.*)")


@dataclass(frozen=True)
class Classes:
    """Classes in the order of the model's outputs.

    Attributes:
        names: Their names.
        index: The class of every word that a label may call it by: its name, WordNet ID, the first of several words.
    """

    names: tuple[str, ...]
    index: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.names)


def read_class_names(classes: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Class names in index order, see `read_classes`."""
    return read_classes(classes).names


def read_classes(classes: str | Path | Sequence[str]) -> Classes:
    """Classes in index order, from a sequence of names or from a file with one a line.

    In a file, every line may begin with a WordNet ID, as in ImageNet's `synset_words.txt`, or with its own number,
    counted from 0.

    Raises:
        DatasetError: The file does not exist or is not UTF-8 text, there are no names, or a name is repeated.
    """
    if not isinstance(classes, (str, Path)):
        return _plain("classes", list(classes))
    where, text = str(classes), text_from_file(Path(classes), "classes file")
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    synsets = [_SYNSET.fullmatch(line) for line in lines]
    if lines and all(synsets):
        return _synsets(where, [(found[1], found[2]) for found in synsets if found])
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(found and int(found[1]) == i for i, found in enumerate(numbered)):
        return _plain(where, [found[2] for found in numbered if found])
    return _plain(where, lines)


def _plain(where: str, names: Sequence[str]) -> Classes:
    if not names:
        raise DatasetError(f"{where}: no class names; expected one name per line, in the order of the model's outputs")
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if not name:
            raise DatasetError(f"{where}:{i + 1}: empty line; expected a class name")
        if name in seen:
            raise DatasetError(f"{where}:{i + 1}: class {name!r} is already on line {seen[name] + 1}")
        seen[name] = i
    return Classes(tuple(names), seen)


def _synsets(where: str, lines: Sequence[tuple[str, str]]) -> Classes:
    """Classes with a WordNet ID each; words that several have (ImageNet has two cranes) are told apart by the ID."""
    ids = dict(_plain(where, [identity for identity, _ in lines]).index)
    often = Counter(words for _, words in lines)
    names = tuple(words if often[words] == 1 else f"{words} ({identity})" for identity, words in lines)
    firsts = Counter(words.split(",")[0].strip() for _, words in lines)
    index = {words.split(",")[0].strip(): i for i, (_, words) in enumerate(lines)}
    index = {word: i for word, i in index.items() if firsts[word] == 1}
    index |= {f"{identity} {words}": i for i, (identity, words) in enumerate(lines)}
    return Classes(names, index | {name: i for i, name in enumerate(names)} | ids)
