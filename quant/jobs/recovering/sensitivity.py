"""How sensitive a model's products are to INT8, alone: `calib sensitivity`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.files import Transaction, exclusive
from quant.calibration.obtain import obtain_calibration
from quant.calibration.run_data import RunData, open_data
from quant.errors import BuildError, SettingsError
from quant.evaluation.unchanged import check_preparation
from quant.jobs.backend_choice import backend_by_name, collector_from_settings
from quant.jobs.measurement import first_batch
from quant.jobs.output_files import stage_texts
from quant.jobs.recovering.float_rules import given_precisions
from quant.jobs.tasks.task_choice import chosen_task
from quant.onnx_graph.model import load_model, refuse_quantized
from quant.onnx_graph.model_file import has_data_file
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.progress import Console, RecordingConsole
from quant.qdq.preparation import prepared_for_quantization
from quant.recovery.float_choice.product_groups import product_groups
from quant.recovery.float_choice.sensitivity import macs_of_products, sensitivities
from quant.recovery.inner_values import single_images
from quant.recovery.judging import Judge
from quant.report.contents.sensitivity import Document, document_from_sensitivities
from quant.report.views.render import json_from_document
from quant.report.views.sensitivity import svg_from_sensitivity
from quant.settings.output_names import SENSITIVITY_JSON, SENSITIVITY_PLOT
from quant.settings.run_settings import RunSettings

Array = NDArray[Any]

_IMAGES = 256  # evaluated, at most
_BYTES = 1 << 28  # of inputs held


def sensitivity(settings: RunSettings, console: Console | None = None) -> Document:
    """Quantize one group of products at a time, hold the outputs against FP32's, and write what was found.

    ONNX Runtime computes in exact INT8 arithmetic, on the first evaluation images. A cache in `settings.out` is used
    as a run uses it, and made otherwise.

    Args:
        settings: As for `run`.
        console: Where progress goes; nowhere by default.

    Returns:
        The contents of `sensitivity.json`.

    Raises:
        ModelError, BuildError, QuantError, DatasetError, CalibrationError: See `run`.
    """
    listener = RecordingConsole(console)
    if settings.model is None:
        raise SettingsError("model: expected an ONNX file, found nothing; give --model")
    model = load_model(settings.model)
    settings = replace(settings, backend="onnxruntime", precision="int8")
    refuse_quantized(model)
    given = given_precisions(settings, model)
    if has_data_file(model.light):
        raise BuildError(
            f"{model.path}: expected less than 1 GiB of weights, found more: each group of products takes a copy of "
            "the model"
        )
    data = open_data(settings, model, listener)
    with exclusive(settings.out):
        backend = backend_by_name(settings, listener, reuse=False)
        baseline = OnnxRuntimeSession(model.proto, name=str(model.path))
        batch = first_batch(data, settings)
        task = chosen_task(model, baseline, batch, data, settings, listener)
        in_float = task.float_nodes | given.float_nodes
        settings = settings.with_algorithm(detects=task.head is not None)
        check_preparation(model, batch.inputs, baseline.run(batch.inputs), task.reader)
        collector = collector_from_settings(settings, listener)
        calibration = obtain_calibration(settings, model, data, backend, collector, listener)
        batches, labels = _images(data, settings)
        judge = Judge(baseline, batches, task.reader, labels if task.reader.scores is not None else None)
        macs = macs_of_products(model.proto, next(single_images(batches, baseline.fixed_batch), batches[0]))
        groups = product_groups(prepared_for_quantization(model.proto), in_float)
        if not groups:
            raise BuildError(f"{model.path}: expected products that INT8 can compute, found none that may be quantized")
        with listener.task("Quantizing one at a time", len(groups)) as advance:
            found = sensitivities(model.proto, calibration.amax, judge, macs, in_float, advance)
        document = document_from_sensitivities(settings, model, found, macs, in_float, judge.images, listener.warnings)
        with Transaction(settings.out) as files:
            texts = {SENSITIVITY_JSON: json_from_document(document), SENSITIVITY_PLOT: svg_from_sensitivity(document)}
            stage_texts(files, texts)
    return document


def _images(data: RunData, settings: RunSettings) -> tuple[list[Mapping[str, Array]], NDArray[np.int64] | None]:
    """Inputs of the first evaluation images, in batches, and their labels where all have one."""
    batches: list[Mapping[str, Array]] = []
    labels: list[NDArray[np.int64] | None] = []
    images = held = 0
    for batch in data.evaluation_stream(settings):
        batches.append(batch.inputs)
        labels.append(batch.labels)
        images += len(batch.names)
        held += sum(array.nbytes for array in batch.inputs.values())
        if images >= _IMAGES or held >= _BYTES:
            break
    known = [array for array in labels if array is not None]
    return batches, np.concatenate(known) if len(known) == len(labels) else None
