"""What was compared: model, data, preprocessing, cache, versions and hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quant.report.views.names import build_names
from quant.report.views.tables import Cell, value_at

_FACTS = (
    ("Model", "model.path", "{}"),
    ("Model's SHA-256", "model.sha256", "{}"),
    ("Compared with", "compared.1.path", "{}"),
    ("Its SHA-256", "compared.1.sha256", "{}"),
    ("And with", "compared.2.path", "{}"),
    ("Its SHA-256", "compared.2.sha256", "{}"),
    ("Back end", "backend.name", "{}"),
    ("Back end's version", "backend.version", "{}"),
    ("Device", "backend.device", "{}"),
    ("Evaluation data", "data.evaluation.path", "{}"),
    ("Images evaluated", "data.evaluation.images", "{:,}"),
    ("Preprocessing from", "preprocessing_origin", "{}"),
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
    ("Products left in float by", "precisions.path", "{}"),
    ("Its SHA-256", "precisions.sha256", "{}"),
    ("Calibration took, s", "calibration.seconds", "{:.2f}"),
    ("Peak memory, MB", "peak_rss_mb", "{:,.0f}"),
    ("Made", "created", "{}"),
)


@dataclass(frozen=True)
class Fact:
    """A title and its values, each with a name if there are several."""

    title: str
    values: Sequence[tuple[str, Cell]]


def facts_from_document(document: dict[str, Any]) -> list[Fact]:
    """All facts; what the report does not have is left out."""
    found = [
        Fact(title, [("", Cell(form.format(value), key, is_name=True))])
        for title, key, form in _FACTS
        if (value := value_at(document, key)) is not None
    ]
    found += [
        Fact(f"{name} engine", [("", Cell(engine_text(build["tensorrt"]), is_name=True))])
        for name, build in zip(build_names(document), document["builds"], strict=True)
        if "tensorrt" in build
    ]
    for part in ("preprocessing", "versions"):
        values = [
            (name.replace("_", " "), Cell(_text(value), f"{part}.{name}", is_name=True))
            for name, value in document.get(part, {}).items()
            if value is not None
        ]
        if values:
            found.append(Fact(part.capitalize(), values))
    return found


def _text(value: Any) -> str:  # noqa: ANN401 - JSON holds several types
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def engine_text(details: Mapping[str, Any]) -> str:
    """Layers by precision, what was fused and folded, memory, and tensors without a scale.

    Args:
        details: The TensorRT back end's details of a build.
    """
    graph = details["graph"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in graph["precisions"].items())
    text = (
        f"layers: {kinds}, {graph['reformats']} copies; {graph['onnx_nodes']} ONNX nodes became "
        f"{graph['engine_layers']} layers ({len(graph['fused'])} of several nodes, "
        f"{len(graph['pruned'])} nodes folded); "
        f"{details['device_memory_bytes'] / 1e6:,.1f} MB of device memory at batch {details['batch']}"
    )
    without = details["without_scale"]
    return text + (f"; {len(without)} tensors have no scale and stay float" if without else "")
