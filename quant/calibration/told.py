"""What a run says of the model and the images before it begins."""

from __future__ import annotations

from datasets.source import AnySource, BoxSource, MaskSource
from quant.onnx_graph.model import ModelInterface, OnnxModel, TensorInfo
from quant.settings.run_settings import RunSettings


def model_line(model: ModelInterface) -> str:
    """The model: size, inputs, outputs."""
    size = f" ({_size(model.bytes)})" if isinstance(model, OnnxModel) else ""
    return f"model: {model.path}{size}, {_tensors('input', model.inputs)}, {_tensors('output', model.outputs)}"


def images_line(settings: RunSettings, source: AnySource, calibrating: int, other: AnySource, evaluated: int) -> str:
    """The images: how many of which folders calibrate and are evaluated.

    Args:
        settings: Precision and cache; nothing calibrates but INT8, and nothing where a cache is trusted.
        source: What calibration reads.
        calibrating: So many of them calibrate.
        other: What is evaluated; may be the same.
        evaluated: So many of them.
    """
    if settings.precision != "int8" or settings.trust_cache:
        return f"images: {other.path} ({_described(other)}): {evaluated:,} are evaluated"
    if other is source:
        held = "held out and evaluated" if evaluated + calibrating == len(source) else "evaluated"
        return f"images: {source.path} ({_described(source)}): {calibrating:,} calibrate, {evaluated:,} are {held}"
    return (
        f"images: {calibrating:,} of {len(source):,} in {source.path} calibrate; {evaluated:,} of {other.path} "
        f"({_described(other)}) are evaluated"
    )


def _described(source: AnySource) -> str:
    classes = "" if source.class_names is None else f", {len(source.class_names)} classes"
    labelled = source.labels is not None or isinstance(source, BoxSource | MaskSource)
    return f"{len(source):,}, {'labelled' if labelled else 'unlabelled'}{classes}"


def _tensors(what: str, infos: tuple[TensorInfo, ...]) -> str:
    shown = [f"'{info.name}' [{', '.join('?' if s is None else str(s) for s in info.shape)}]" for info in infos[:3]]
    return f"{what}{'s' * (len(infos) > 1)} {', '.join([*shown, *['...'] * (len(infos) > 3)])}"


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
