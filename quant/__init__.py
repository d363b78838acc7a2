"""Models, builds, comparison and the report.

    from quant import build, compare

The names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quant.api import Int8Model, build, compare
    from quant.collectors.onnxruntime_collector import collect_statistics
    from quant.errors import BuildError, ModelError, QuantError
    from quant.jobs.run import run
    from quant.jobs.sweep import sweep
    from quant.onnx_graph.model import OnnxModel, load_model
    from quant.progress import PrintingConsole
    from quant.qdq.writer import qdq_model_from_amax, quantizable_tensors
    from quant.settings.run_settings import RunSettings

_MODULES = {
    "BuildError": "errors",
    "ModelError": "errors",
    "QuantError": "errors",
    "Int8Model": "api",
    "build": "api",
    "compare": "api",
    "OnnxModel": "onnx_graph.model",
    "load_model": "onnx_graph.model",
    "collect_statistics": "collectors.onnxruntime_collector",
    "run": "jobs.run",
    "sweep": "jobs.sweep",
    "PrintingConsole": "progress",
    "qdq_model_from_amax": "qdq.writer",
    "quantizable_tensors": "qdq.writer",
    "RunSettings": "settings.run_settings",
}

__all__ = [
    "BuildError",
    "Int8Model",
    "ModelError",
    "OnnxModel",
    "PrintingConsole",
    "QuantError",
    "RunSettings",
    "build",
    "collect_statistics",
    "compare",
    "load_model",
    "qdq_model_from_amax",
    "quantizable_tensors",
    "run",
    "sweep",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute may be anything
    if name not in _MODULES:
        raise AttributeError(f"module 'quant' has no attribute '{name}'")
    return getattr(importlib.import_module(f"quant.{_MODULES[name]}"), name)
