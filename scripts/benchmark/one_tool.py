"""Times calibration by this toolkit and its peers on the same images, each in its own process.

Each process runs this file; `scripts/bench_calibration.py` starts them in turn. Seconds are counted from the first
image read to the quantized model, after imports; peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.histograms.loading import begin_loading
from datasets import BatchStream
from quant.calibration.run_data import RunData, open_data
from quant.onnx_graph.model import OnnxModel, load_model
from quant.progress import RecordingConsole
from quant.settings.run_settings import RunSettings

PEERS = ("onnxruntime.quantization", "nvidia-modelopt")
TOOLS = ("forward", "calib", *PEERS)


def measure(tool: str, settings: RunSettings, quantized: Path) -> dict[str, float]:
    """Run one tool once.

    Args:
        tool: One of TOOLS.
        settings: Model, data, algorithm and sample.
        quantized: Where the INT8 model goes.

    Returns:
        `seconds`, `peak_mb` and, for this toolkit, its parts: `collect_`, `search_`, `cache_` and `write_seconds`.

    Raises:
        ImportError: The tool is not installed.
    """
    if settings.model is None:
        raise ValueError("benchmark: expected a model")
    model = load_model(settings.model)
    if tool == "calib":
        begin_loading()  # as `calib run` does
    data = open_data(settings, model, RecordingConsole())
    runner: Callable[[RunSettings, OnnxModel, RunData, Path], dict[str, float]] = {
        "forward": _forward,
        "calib": _toolkit,
        "onnxruntime.quantization": _onnxruntime,
        "nvidia-modelopt": _modelopt,
    }[tool]
    result = runner(settings, model, data, quantized)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**result, "peak_mb": peak / (1e6 if sys.platform == "darwin" else 1e3)}


def top1(quantized: Path, settings: RunSettings) -> float | None:
    """Top-1 accuracy of a model on the evaluation images, per cent; None if they are not labelled."""
    from quant.evaluation.accuracy import evaluate
    from quant.onnxruntime.session import OnnxRuntimeSession

    model = load_model(quantized)
    data = open_data(replace(settings, model=quantized), model, RecordingConsole())
    session = OnnxRuntimeSession(model.proto, name=str(quantized))
    return evaluate({"it": session}, "it", data.evaluation_stream(settings))["it"].top1


def _forward(settings: RunSettings, model: OnnxModel, data: RunData, quantized: Path) -> dict[str, float]:
    """The plain FP32 forward pass of the images, already decoded: the lower limit for any calibration."""
    from quant.onnxruntime.session import OnnxRuntimeSession

    session = OnnxRuntimeSession(model.proto)
    batches = [batch.inputs for batch in data.calibration_stream(settings)]
    session.run(batches[0])
    start = time.perf_counter()
    for batch in batches:
        session.run(batch)
    return {"seconds": time.perf_counter() - start}


def _toolkit(settings: RunSettings, model: OnnxModel, data: RunData, quantized: Path) -> dict[str, float]:
    import onnx

    from calib.caches.cache import cache_from_amax, text_from_cache
    from calib.calibrator import calibrator_from_name
    from quant.collectors.onnxruntime_collector import collect_statistics
    from quant.qdq.writer import qdq_model_from_amax

    calibrator = calibrator_from_name(settings.algo, data.calibration_stream(settings), percentile=settings.percentile)
    start = time.perf_counter()
    collect_statistics(model, calibrator, memory_limit=settings.memory_limit << 20)
    collected = time.perf_counter()
    amax = calibrator.compute_amax()
    searched = time.perf_counter()
    cache = cache_from_amax(amax, calibrator.algorithm)
    quantized.with_suffix(".cache").write_text(text_from_cache(cache), encoding="utf-8")
    cached = time.perf_counter()
    onnx.save_model(qdq_model_from_amax(model.proto, amax), str(quantized))
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "collect_seconds": collected - start,
        "search_seconds": searched - collected,
        "cache_seconds": cached - searched,
        "write_seconds": end - cached,
    }


def _onnxruntime(settings: RunSettings, model: OnnxModel, data: RunData, quantized: Path) -> dict[str, float]:
    import onnxruntime.quantization as peer

    class Reader(peer.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, stream: BatchStream) -> None:
            self._batches = iter(stream)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self._batches, None)
            return None if batch is None else batch.inputs

    method = {
        "entropy": peer.CalibrationMethod.Entropy,
        "minmax": peer.CalibrationMethod.MinMax,
        "percentile": peer.CalibrationMethod.Percentile,
    }[settings.algo]
    start = time.perf_counter()
    peer.quantize_static(
        str(model.path),
        str(quantized),
        Reader(data.calibration_stream(settings)),
        quant_format=peer.QuantFormat.QDQ,
        per_channel=True,
        activation_type=peer.QuantType.QInt8,
        weight_type=peer.QuantType.QInt8,
        calibrate_method=method,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    return {"seconds": time.perf_counter() - start}


def _modelopt(settings: RunSettings, model: OnnxModel, data: RunData, quantized: Path) -> dict[str, float]:
    from modelopt.onnx.quantization import quantize

    start = time.perf_counter()
    images = np.concatenate([batch.inputs[data.input_name] for batch in data.calibration_stream(settings)])
    quantize(
        onnx_path=str(model.path),
        calibration_data=images,
        calibration_method={"entropy": "entropy", "minmax": "max"}[settings.algo],
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(quantized),
        log_level="ERROR",
    )
    return {"seconds": time.perf_counter() - start}


def main() -> None:
    """Measure one tool in this process and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=(*TOOLS, "top1"))
    parser.add_argument("settings", help="fields of RunSettings as JSON")
    parser.add_argument("quantized", type=Path)
    arguments = parser.parse_args()
    paths = ("model", "data", "eval", "labels", "classes", "out", "cache")
    fields: dict[str, Any] = {k: Path(v) if k in paths and v else v for k, v in json.loads(arguments.settings).items()}
    settings = RunSettings(**fields)
    if arguments.tool == "top1":
        result: dict[str, float | None] = {"top1": top1(arguments.quantized, settings)}
    else:
        result = dict(measure(arguments.tool, settings, arguments.quantized))
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
