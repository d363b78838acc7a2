"""Parts of a report that its sections are made of, whatever they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quant.report.views.provenance_facts import Fact
from quant.report.views.tables import Cell, Table


@dataclass(frozen=True)
class Answer:
    """What a build says about an image."""

    who: str
    name: Cell
    confidence: Cell
    margin: Cell


@dataclass(frozen=True)
class Card:
    """An image that flipped: file, label and both answers."""

    file: Cell
    label: Cell | None
    answers: tuple[Answer, Answer]


@dataclass(frozen=True)
class Picture:
    """An image with what changed drawn on it.

    Attributes:
        key: The place in report.json of what is drawn.
        file: The image's name.
        facts: What changed, in figures with their titles.
    """

    key: str
    file: Cell
    facts: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: Heading.
        anchor: Its id, and the name of its charts.
        notes: Sentences below the heading.
        tables: Tables, each with a caption, which may be empty.
        cards: Groups of images, each with a caption that says how many there are.
        pictures: Images with what changed; the HTML shows them in place of the tables.
        facts: What was compared.
        lines: A list of texts from outside.
        code: A command line.
    """

    title: str
    anchor: str
    notes: Sequence[str] = ()
    tables: Sequence[tuple[str, Table]] = ()
    cards: Sequence[tuple[str, Sequence[Card]]] = ()
    pictures: Sequence[Picture] = ()
    facts: Sequence[Fact] = ()
    lines: Sequence[Cell] = ()
    code: Cell | None = None
