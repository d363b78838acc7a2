"""The report's sections, made from the document: what HTML and Markdown both show, in this order.

A section that a document has no data for is left out, so that any comparison can be shown.
"""

from __future__ import annotations

from typing import Any

from quant.report.views import tables
from quant.report.views.detection.sections import detection_sections
from quant.report.views.layers.sections import layer_sections, tried_sections
from quant.report.views.migration.sections import migration_sections
from quant.report.views.names import baseline_name, build_names, examined_name, examined_place
from quant.report.views.parts import Answer, Card, Section
from quant.report.views.provenance_facts import facts_from_document
from quant.report.views.segmentation.sections import segmentation_sections
from quant.report.views.tables import Cell, Table
from quant.report.views.tasks.scores import scores_sections

Document = dict[str, Any]
SHOWN_FLIPS = 18  # of each kind, with a picture
_KINDS = {
    "lost": "Right in {baseline}, wrong in {build}",
    "won": "Wrong in {baseline}, right in {build}",
    "changed": "Another answer, wrong in both",
}


def sections_from_document(document: Document) -> list[Section]:
    """All sections that the document has data for."""
    makers = (
        _compared,
        _builds,
        _recovery,
        migration_sections,
        _outputs,
        _metric,
        detection_sections,
        segmentation_sections,
        scores_sections,
        _classes,
        _flips,
        _confusion,
        _reliability,
        _convergence,
        _tensors,
        layer_sections,
        tried_sections,
        _problems,
        _repeat,
    )
    return [section for maker in makers for section in maker(document)]


def _builds(document: Document) -> list[Section]:
    rows, columns = document["builds"], tables.columns_of_builds(document)
    notes = [f"Latency: median of a batch of {rows[0]['latency_batch']}."]
    return [
        Section(
            "Builds side by side",
            "builds",
            notes,
            [("", tables.turned_table(rows, "builds", columns, build_names(document)))],
        )
    ]


def _recovery(document: Document) -> list[Section]:
    """What was done about an INT8 build that lost too much: the ladder, and what had to stay in float."""
    found = document.get("recovery")
    if not found:
        return []
    outcome = "The INT8 build of this report is the recovered one" if found["used"] else "It did not become better"
    notes = [
        f"INT8 as calibrated lost too much: {found['before']}. {outcome}. SQNR is that of the outputs on calibration "
        "images that the steps were not made from; a step is kept if it is better there beyond chance.",
        f"Looks at the evaluation images: {'; '.join(found['looks']) or 'none'}. "
        + (
            "The loss is within the limit beyond chance, for so many looks."
            if found["met"]
            else "That the loss is within the limit is not shown beyond chance."
        ),
        f"{found['int8_share']:.1f} % of the multiply-accumulates that INT8 can compute are in INT8. The search took "
        f"{found['seconds']:.0f} s and {found['evaluations']} evaluations.",
    ]
    shown = [("", tables.table_from_rows(found["steps"], "recovery.steps", tables.STEPS, what="steps"))]
    if found["sensitivity"]:
        table = tables.table_from_rows(
            found["sensitivity"], "recovery.sensitivity", tables.SENSITIVITY, shown=12, what="products"
        )
        shown.append(("Products, the most sensitive first", table))
    return [Section("Recovery", "recovery", notes, shown)]


def _outputs(document: Document) -> list[Section]:
    """Each output of the examined build, the worst first, and what the build does where it is deployed."""
    place = examined_place(document)
    row = document["builds"][place or 0]
    found, deployed = row.get("outputs"), row.get("deployed")
    if not found:
        return []
    prefix = f"builds.{place}"
    notes = [
        f"Signal to quantization noise of {examined_name(document)} against {baseline_name(document)}, the worst "
        "output first. Channels of one magnitude are judged together: loud ones would hide the others."
    ]
    shown = [("", tables.table_from_rows(found, f"{prefix}.outputs", tables.OUTPUTS, what="outputs"))]
    for i, output in enumerate(found):
        if output["groups"]:
            columns = tables.table_from_rows(output["groups"], f"{prefix}.outputs.{i}.groups", tables.GROUPS)
            shown.append((f"Channels of {output['name']}", columns))
    if deployed and deployed["differs"]:
        notes.append(
            f"As ONNX Runtime deploys it on this processor, the lowest SQNR of output '{deployed['output']}' is "
            f"{_decibels(deployed['output_db'])} instead of {_decibels(deployed['written_output_db'])} on the first "
            f"{deployed['images']:,} images: its integer kernels saturate. TensorRT does not have this; see the "
            "warnings."
        )
    return [Section("Outputs, worst first", "outputs", notes, shown)]


def _decibels(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.1f} dB"


def _metric(document: Document) -> list[Section]:
    """The user's own metric."""
    found = document.get("metric")
    if not found or found.get("task"):
        return []
    columns = (
        tables.Column("Build", "precision"),
        tables.Column(found["name"], "score", "{:.6g}"),
        tables.Column("Drop", "drop", "{:+.4g}"),
        tables.Column("Drop's 95 % CI", "drop_ci95", "{0[0]:+.4g} to {0[1]:+.4g}"),
    )
    share = f"{document['max_drop']:g} % of {baseline_name(document)}'s score, {found['allowed_drop']:.4g},"
    allowed = f"{found['allowed_drop']:.4g}" if found.get("allowed_in_unit") else share
    notes = [
        f"{'Score' if found.get('of_all') else 'Average'} of {found['spec']} over {found['images']:,} images, higher "
        f"is better; the interval is a paired bootstrap of {found['resamples']:,} resamples, seed {found['seed']}.",
        f"The verdict is based on it: {allowed} is allowed.",
    ]
    rows = [{**row, "precision": name} for row, name in zip(found["builds"], build_names(document), strict=True)]
    table = tables.table_from_rows(rows, "metric.builds", columns)
    return [Section(found["name"], "metric", notes, [("", table)])]


def _compared(document: Document) -> list[Section]:
    return [Section("What was compared", "compared", facts=facts_from_document(document))]


def _classes(document: Document) -> list[Section]:
    rows = document.get("per_class")
    if not rows:
        return []
    columns = tables.titled(tables.CLASSES, baseline=baseline_name(document), build=examined_name(document))
    table = tables.table_from_rows(rows, "per_class", columns, what="classes")
    return [Section("Drop by class, worst first", "classes", tables=[("", table)])]


def _flips(document: Document) -> list[Section]:
    found = document.get("flips")
    if not found or not found["images"]:
        return []
    baseline, build, cards, listed = baseline_name(document), examined_name(document), [], []
    for kind, caption in _KINDS.items():
        rows = {i: row for i, row in enumerate(found["images"]) if row["kind"] == kind}
        if not rows:
            continue
        title = (
            caption.format(baseline=baseline, build=build)
            if found["lost"] is not None
            else f"Another answer than {baseline}'s"
        )
        shown = dict(list(rows.items())[:SHOWN_FLIPS])
        title += f" ({found[kind]:,} image{'s' * (found[kind] != 1)})"
        surest = f", the {len(shown)} surest" if len(shown) < found[kind] else ""
        cards.append((title + surest, [_card(row, f"flips.images.{i}", baseline, build) for i, row in shown.items()]))
        listed.append((title, _flips_table(found["images"], kind, baseline, build)))
    notes = ["Each answer has its confidence, and its margin over the second answer in logits."]
    return [Section("Images that flipped", "flips", notes, listed, cards)]


def _flips_table(rows: list[Document], kind: str, baseline: str, build: str) -> Table:
    table = tables.table_from_rows(rows, "flips.images", tables.titled(tables.FLIPS, baseline=baseline, build=build))
    kept = [cells for row, cells in zip(rows, table.rows, strict=True) if row["kind"] == kind]
    return Table(table.titles, kept, what="images")


def _card(row: Document, key: str, baseline: str, build: str) -> Card:
    def answer(who: str, part: str) -> Answer:
        said = row[part]
        return Answer(
            who,
            Cell(said["name"], f"{key}.{part}.name", is_name=True),
            tables.figure(said["confidence"], "{:.2f}", f"{key}.{part}.confidence"),
            tables.figure(said["margin"], "{:.2f}", f"{key}.{part}.margin"),
        )

    label = None if row["label"] is None else Cell(row["label_name"], f"{key}.label_name", is_name=True)
    return Card(
        Cell(row["file"], f"{key}.file", is_name=True), label, (answer(baseline, "fp32"), answer(build, "build"))
    )


def _confusion(document: Document) -> list[Section]:
    found = document.get("confusion")
    if not found or not found["pairs"]:
        return []
    baseline, build = baseline_name(document), examined_name(document)
    truth = "Label" if found["against"] == "labels" else f"{baseline}'s answer"
    columns = tables.titled(tables.PAIRS, baseline=baseline, build=build, truth=truth)
    table = tables.table_from_rows(found["pairs"], "confusion.pairs", columns, shown=12, what="pairs")
    notes = [f"Classes that {build} mistakes for another more often than {baseline} does."]
    return [Section(f"Confusion that {build} adds", "confusion", notes, [("", table)])]


def _reliability(document: Document) -> list[Section]:
    curves = document.get("reliability")
    if not curves:
        return []
    names = (baseline_name(document), examined_name(document))
    notes = [
        "Expected calibration error (mean gap between confidence and accuracy): "
        + ", ".join(f"{name} {curve['ece']:.2f} points" for name, curve in zip(names, curves, strict=False))
        + "."
    ]
    shown = [
        (names[i], tables.table_from_rows(curve["bins"], f"reliability.{i}.bins", tables.BINS))
        for i, curve in enumerate(curves)
    ]
    return [Section("Reliability before and after", "reliability", notes, shown)]


def _tensors(document: Document) -> list[Section]:
    rows = document.get("tensors")
    if not rows:
        return []
    notes = [
        "Each tensor alone on its INT8 grid; the one to look at first comes first: it has the lowest ratio of signal "
        "to quantization noise (SQNR) of those that the INT8 model quantizes."
    ]
    skipped = sum(row["quantized"] is False for row in rows)
    if skipped:
        notes.append(f"The last {skipped:,} of {len(rows):,} have a scale, but are not quantized on their own.")
    table = tables.table_from_rows(rows, "tensors", tables.TENSORS, shown=20, what="tensors")
    return [Section("Tensors", "tensors", notes, [("", table)])]


def _convergence(document: Document) -> list[Section]:
    """How many images are enough, for the scales and for the verdict."""
    found = document.get("convergence")
    if not found:
        return []
    notes = [
        f"{found['text']}. Scales of a part of the images come from the same pass; a scale that moved by more than 1 % "
        "matters where it changes its tensor's noise by 0.1 dB or more."
    ]
    shown = [
        ("Scales of a part of the images, against those of all", tables.table_from_rows(
            found["scales"], "convergence.scales", tables.CONVERGENCE, what="parts"
        ))
    ]  # fmt: skip
    if found["verdict"]:
        name = "Drop, points" if found["verdict"][0]["figure"] == "drop" else "Agreement %"
        columns = tables.titled(tables.VERDICT_OVER_IMAGES, figure=name)
        table = tables.table_from_rows(found["verdict"], "convergence.verdict", columns, what="parts")
        shown.append((f"{examined_name(document)} on parts of the evaluated images", table))
    return [Section("How many images are enough", "convergence", notes, shown)]


def _problems(document: Document) -> list[Section]:
    found = []
    warnings = [Cell(text, f"warnings.{i}", is_name=True) for i, text in enumerate(document.get("warnings", ()))]
    if warnings:
        found.append(Section("Warnings", "warnings", lines=warnings))
    failed = document.get("failed_builds", ())
    if failed:
        columns = (tables.Column("Build", "precision"), tables.name_column("Why", "reason"))
        table = tables.table_from_rows(failed, "failed_builds", columns)
        found.append(Section("Builds that failed", "failed", tables=[("", table)]))
    quarantined = document.get("quarantined", ())
    if quarantined:
        columns = (tables.name_column("Image", "file"), tables.name_column("Why", "reason"))
        table = tables.table_from_rows(quarantined, "quarantined", columns, brief=20, what="images")
        found.append(Section("Images left out", "quarantined", tables=[("", table)]))
    return found


def _repeat(document: Document) -> list[Section]:
    if not document.get("command"):
        return []
    notes = [f"In the folder {document['working_folder']}:"] if document.get("working_folder") else []
    return [Section("To repeat this run", "repeat", notes, code=Cell(document["command"], "command", is_name=True))]
