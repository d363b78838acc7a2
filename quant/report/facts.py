"""What was compared: model, data, preprocessing, cache, versions and hashes."""

from __future__ import annotations

from typing import Any

from quant.report.tables import Cell, value_at

_FACTS = (
    ("Model", "model.path", "{}"),
    ("Model's SHA-256", "model.sha256", "{}"),
    ("Back end", "backend.name", "{}"),
    ("Back end's version", "backend.version", "{}"),
    ("Device", "backend.device", "{}"),
    ("Evaluation data", "data.evaluation.path", "{}"),
    ("Images evaluated", "data.evaluation.images", "{:,}"),
    ("Algorithm", "calibration.algo", "{}"),
    ("Percentile", "calibration.parameters.percentile", "{}"),
    ("Calibration data", "data.calibration.path", "{}"),
    ("Calibration images", "data.calibration.images", "{:,}"),
    ("Sampling", "data.calibration.sampling", "{}"),
    ("Seed", "data.calibration.seed", "{}"),
    ("Calibration data's SHA-256", "data.calibration.sha256", "{}"),
    ("Cache", "calibration.cache", "{}"),
    ("The cache was", "calibration.how", "{}"),
    ("Tensors with a scale", "calibration.tensors", "{:,}"),
    ("Calibration took, s", "calibration.seconds", "{:.2f}"),
    ("Peak memory, MB", "peak_rss_mb", "{:,.0f}"),
    ("Made", "created", "{}"),
)


def facts_from_document(document: dict[str, Any]) -> list[tuple[str, Cell]]:
    """Titles and values; what the report does not have is left out."""
    found = [
        (title, Cell(form.format(value), key, is_name=True))
        for title, key, form in _FACTS
        if (value := value_at(document, key)) is not None
    ]
    for part, title in (("preprocessing", "Preprocessing: {}"), ("versions", "Version of {}")):
        for name, value in document.get(part, {}).items():
            if value is not None:
                found.append((title.format(name.replace("_", " ")), Cell(_text(value), f"{part}.{name}", is_name=True)))
    return found


def _text(value: Any) -> str:  # noqa: ANN401 - JSON holds several types
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
