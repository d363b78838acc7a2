"""Tables of the report, with cells that know which value of report.json they show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A text of the report.

    Attributes:
        text: What is shown.
        key: The value's place in report.json, such as `builds.2.top1`; empty for our own words.
        is_name: Whether it is a name from outside, which may be long and is aligned to the left.
    """

    text: str
    key: str = ""
    is_name: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        titles: Titles of the columns.
        rows: Rows of cells, one per column.
        shown: Rows that the HTML shows at once.
        brief: Rows that Markdown shows.
        what: What the rows are, to say how many more there are.
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    shown: int = 30
    brief: int = 10
    what: str = "rows"

    @property
    def heads(self) -> list[tuple[str, bool]]:
        """Titles, and whether their columns hold names."""
        return [(title, bool(self.rows) and self.rows[0][i].is_name) for i, title in enumerate(self.titles)]


@dataclass(frozen=True)
class Column:
    """A column: its title, the key within a row, and the format of its values.

    Attributes:
        title: Shown above the column.
        key: Key within the row's object; dots lead into nested objects.
        form: Format string of a value.
        is_name: See `Cell`.
    """

    title: str
    key: str
    form: str = "{}"
    is_name: bool = field(default=False)


def name_column(title: str, key: str) -> Column:
    """A column of names from outside."""
    return Column(title, key, is_name=True)


def table_from_rows(
    rows: Sequence[dict[str, Any]],
    prefix: str,
    columns: Iterable[Column],
    **options: Any,  # noqa: ANN401
) -> Table:
    """A table with a line for each row of a list in report.json.

    Args:
        rows: The list.
        prefix: Its place in report.json.
        columns: What to show; columns that no row fills are left out.
        options: Options for `Table`.
    """
    kept = [column for column in columns if any(value_at(row, column.key) is not None for row in rows)]
    cells = [[_cell(row, column, f"{prefix}.{i}") for column in kept] for i, row in enumerate(rows)]
    return Table([column.title for column in kept], cells, **options)


def turned_table(rows: Sequence[dict[str, Any]], prefix: str, columns: Sequence[Column], names: Sequence[str]) -> Table:
    """The same table with a column for each row, titled with these names; the first column is left out."""
    table = table_from_rows(rows, prefix, columns)
    titles = ["", *names]
    turned = [[Cell(title), *(row[i] for row in table.rows)] for i, title in enumerate(table.titles)][1:]
    return Table(titles, turned, brief=len(turned))


def value_at(row: Any, key: str) -> Any:  # noqa: ANN401 - JSON holds several types
    """The value at a place such as `fp32.margin`; None if a part of the path is missing."""
    for part in key.split("."):
        if row is None:
            return None
        row = dict(enumerate(row)).get(int(part)) if isinstance(row, list) else row.get(part)
    return row


def figure(value: Any, form: str, key: str) -> Cell:  # noqa: ANN401 - numbers and intervals
    """A value's cell; a dash where there is none."""
    return Cell("-") if value is None else Cell(form.format(value), key)


def _cell(row: dict[str, Any], column: Column, prefix: str) -> Cell:
    value = value_at(row, column.key)
    if value is None:
        return Cell("-")
    return Cell(column.form.format(value), f"{prefix}.{column.key}", column.is_name)


BUILDS = (
    Column("Build", "precision"),
    Column("Top-1 %", "top1", "{:.2f}"),
    Column("Top-5 %", "top5", "{:.2f}"),
    Column("Drop, points", "drop_top1", "{:+.2f}"),
    Column("Drop's 95 % CI", "drop_ci95", "{0[0]:+.2f} to {0[1]:+.2f}"),
    Column("mAP 50-95", "map", "{:.2f}"),
    Column("mAP 50", "map50", "{:.2f}"),
    Column("Drop of mAP", "drop_map", "{:+.2f}"),
    Column("Its 95 % CI", "drop_map_ci95", "{0[0]:+.2f} to {0[1]:+.2f}"),
    Column("Agreement mAP 50-95", "agreement_map", "{:.2f}"),
    Column("Agreement mAP 50", "agreement_map50", "{:.2f}"),
    Column("mIoU %", "miou", "{:.2f}"),
    Column("Pixels right %", "pixel_accuracy", "{:.2f}"),
    Column("Drop of mIoU", "drop_miou", "{:+.2f}"),
    Column("Its 95 % CI", "drop_miou_ci95", "{0[0]:+.2f} to {0[1]:+.2f}"),
    Column("Pixels as in FP32 %", "agreement_pixels", "{:.2f}"),
    Column("Their 95 % CI", "agreement_pixels_ci95", "{0[0]:.2f} to {0[1]:.2f}"),
    Column("Agreement mIoU", "agreement_miou", "{:.2f}"),
    Column("Images lost", "lost", "{:,}"),
    Column("Images won", "won", "{:,}"),
    Column("Agreement %", "agreement", "{:.2f}"),
    Column("Agreement's 95 % CI", "agreement_ci95", "{0[0]:.2f} to {0[1]:.2f}"),
    Column("SQNR, dB", "sqnr_db", "{:.1f}"),
    Column("Latency, ms", "latency_ms", "{:,.2f}"),
    Column("p99, ms", "latency_p99_ms", "{:,.2f}"),
    Column("Images/s", "images_per_second", "{:,.0f}"),
    Column("Speed-up", "speedup", "{:.2f}"),
    Column("Bytes", "bytes", "{:,}"),
    Column("Times smaller", "size_ratio", "{:.2f}"),
)


def columns_of_builds(document: dict[str, Any]) -> tuple[Column, ...]:
    """The columns of builds side by side, with the task's score under its own name where it has one."""
    found = document.get("scores")
    if not found:
        return BUILDS
    name = found["score"][0].upper() + found["score"][1:]
    own = (
        Column(name, "score", "{:.5g}"),
        Column(f"{name} against FP32", "agreement_score", "{:.5g}"),
        Column("Drop" if not document["metric"]["lower_is_better"] else "Added", "drop_score", "{:+.4g}"),
        Column("Its 95 % CI", "drop_score_ci95", "{0[0]:+.4g} to {0[1]:+.4g}"),
    )
    return (BUILDS[0], *own, *BUILDS[1:])


CLASSES = (
    name_column("Class", "name"),
    Column("Images", "images", "{:,}"),
    Column("{baseline} %", "top1_fp32", "{:.2f}"),
    Column("{build} %", "top1", "{:.2f}"),
    Column("Drop", "drop", "{:+.2f}"),
    Column("95 % CI", "drop_ci95", "{0[0]:.2f} to {0[1]:.2f}"),
)
PAIRS = (
    name_column("{truth}", "label_name"),
    name_column("Taken for", "answer_name"),
    Column("{baseline}", "fp32", "{:,}"),
    Column("{build}", "build", "{:,}"),
    Column("Added", "added", "{:+,}"),
)
BINS = (
    Column("From %", "low"),
    Column("To %", "high"),
    Column("Images", "images", "{:,}"),
    Column("Confidence %", "confidence", "{:.1f}"),
    Column("Accuracy %", "accuracy", "{:.1f}"),
)
TENSORS = (
    name_column("Tensor", "name"),
    Column("amax", "amax", "{:.4g}"),
    Column("max |x|", "abs_max", "{:.4g}"),
    Column("amax / max", "amax_ratio", "{:.3f}"),
    Column("Clipped %", "clipped", "{:.4f}"),
    Column("SQNR, dB", "sqnr_db", "{:.1f}"),
)
CONVERGENCE = (
    Column("Images", "images", "{:,}"),
    Column("Moved by 1 %", "moved", "{:,}"),
    Column("Most, %", "largest", "{:.2f}"),
    Column("Noise, dB", "noise_db", "{:.2f}"),
    name_column("Tensor that moved most", "tensor"),
)
VERDICT_OVER_IMAGES = (
    Column("Images", "images", "{:,}"),
    Column("{figure}", "value", "{:.2f}"),
    Column("95 % CI", "interval", "{0[0]:.2f} to {0[1]:.2f}"),
)
OUTPUTS = (
    name_column("Output", "name"),
    Column("SQNR, dB", "sqnr_db", "{:.1f}"),
    Column("Worst part, dB", "worst_db", "{:.1f}"),
    Column("Worst channel", "worst_channel", "{:,}"),
    Column("Its SQNR, dB", "worst_channel_db", "{:.1f}"),
)
GROUPS = (
    Column("From", "first", "{:,}"),
    Column("To", "last", "{:,}"),
    Column("Channels", "channels", "{:,}"),
    Column("SQNR, dB", "sqnr_db", "{:.1f}"),
)
STEPS = (
    Column("Step", "step"),
    Column("Before, dB", "before_db", "{:.1f}"),
    Column("After, dB", "after_db", "{:.1f}"),
    Column("Outcome", "outcome"),
    Column("Seconds", "seconds", "{:.1f}"),
    name_column("What it did", "detail"),
)
SENSITIVITY = (
    name_column("Product", "node"),
    Column("Operator", "op_type"),
    Column("SQNR alone in INT8, dB", "sqnr_db", "{:.1f}"),
    Column("Work %", "macs_share", "{:.2f}"),
    Column("Runs in", "precision"),
)
FLIPS = (
    name_column("Image", "file"),
    name_column("Label", "label_name"),
    name_column("{baseline} says", "fp32.name"),
    Column("margin", "fp32.margin", "{:.2f}"),
    name_column("{build} says", "build.name"),
    Column("margin", "build.margin", "{:.2f}"),
)


def titled(columns: Iterable[Column], **words: str) -> list[Column]:
    """Columns with words put into their titles."""
    return [Column(c.title.format(**words), c.key, c.form, c.is_name) for c in columns]
