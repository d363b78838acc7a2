"""What FP32's answers tell of a project: which labels are the model's, and which preprocessing it was trained with."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets import DatasetError, Preprocessing
from datasets.source import BoxSource, ImageSource
from quant.backend import Runnable
from quant.calibration.preprocessing_choice import metadata_of
from quant.calibration.run_data import RunData
from quant.errors import SettingsError
from quant.evaluation.outputs import OutputReader
from quant.jobs.first_look.fitting_preprocessing import (
    FoundPreprocessing,
    fitting_candidates,
    said_preprocessing,
    tried_preprocessing,
    untold_resize,
    usual_preprocessing,
)
from quant.jobs.first_look.project import OPEN, FoundLabels
from quant.jobs.measurement import first_batch, read_outputs
from quant.onnx_graph.model import OnnxModel
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.progress import Console, RecordingConsole
from quant.settings.run_settings import RunSettings


def fitting_preprocessing(
    folder: Path, model: OnnxModel, source: ImageSource, candidates: Sequence[FoundLabels], console: Console
) -> tuple[FoundPreprocessing, FoundLabels]:
    """The preprocessing of a model with one input, and the first labels that an output of it answers.

    Args:
        folder: The working folder.
        model: The model.
        source: The images, with the first of these labels.
        candidates: What may be the labels of the images, see `find_labels`.
        console: Where progress goes.

    Returns:
        Both. Labels that no output answers are a question.

    Raises:
        SettingsError: No preset fits the input.
        ModelError, DatasetError: Model or images cannot be used.
    """
    metadata = metadata_of(model)
    said = said_preprocessing(model, metadata, source, folder)
    answers = metadata.task in (None, "classify") and not isinstance(source, BoxSource)
    bound = _bound(model, said) if answers and source.labels is not None else None
    if bound is None:
        return said or _with_resize(usual_preprocessing(model), model, source), candidates[0]
    with contextlib.closing(OnnxRuntimeBackend()) as backend:
        runnable = backend.build(model, "fp32").runnable
        labels, data, reader = _fitting_labels(candidates, model, runnable, bound, console)
        if said is not None:
            return said, labels
        tried = tried_preprocessing(data, _settings(model, data), model, runnable, reader)
    return _with_resize(usual_preprocessing(model) if tried is None else tried, model, source), labels


def _bound(model: OnnxModel, said: FoundPreprocessing | None) -> Preprocessing | None:
    """A preprocessing that the input takes; None where only a size that nobody has said yet is missing."""
    info = model.inputs[0]
    if said is not None:
        try:
            return said.preprocessing.bound_to(info.shape, info.dtype)
        except DatasetError:
            return None
    candidates = fitting_candidates(model)
    if not candidates:
        raise SettingsError(f"{model.path}: no preset fits its input {list(info.shape)}; write preprocess.toml")
    return next(iter(candidates.values())).bound_to(info.shape, info.dtype)


def _fitting_labels(
    candidates: Sequence[FoundLabels], model: OnnxModel, runnable: Runnable, bound: Preprocessing, console: Console
) -> tuple[FoundLabels, RunData, OutputReader]:
    """The first labels that an output answers; where none are, a table rather than folders, as a question."""
    batch, looked = None, []
    for labels in candidates:
        everything = np.arange(len(labels.source))
        name = model.inputs[0].name
        data = RunData(labels.source, everything[:0], labels.source, everything, bound, input_name=name)
        batch = first_batch(data, _settings(model, data)) if batch is None else batch
        heard = RecordingConsole()
        reader, problem = read_outputs(model, runnable, batch, data, heard)
        looked.append((labels, data, reader, problem, heard.warnings))
        if not problem:
            break
    else:
        looked.sort(key=lambda each: each[0].table is None)  # which keeps the order among tables
    labels, data, reader, problem, warnings = looked[0] if problem else looked[-1]
    for warning in warnings:
        console.warn(warning)
    if problem:
        said, *others = labels.guesses
        labels = replace(labels, guesses=(replace(said, because=problem, certainty=OPEN), *others))
    return labels, data, reader


def _settings(model: OnnxModel, data: RunData) -> RunSettings:
    return RunSettings(model=model.path, data=data.source.path)


def _with_resize(found: FoundPreprocessing, model: OnnxModel, source: ImageSource) -> FoundPreprocessing:
    return replace(found, resize_untold=untold_resize(found.preprocessing, model, source))
