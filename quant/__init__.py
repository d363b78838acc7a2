"""Models, builds, comparison and the report.

    from quant import build, compare

The names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quant.activations import collect_statistics
    from quant.api import Int8Model, build, compare
    from quant.errors import BuildError, ModelError, QuantError
    from quant.graph import OnnxModel, load_model
    from quant.pipeline import run
    from quant.qdq import qdq_model_from_amax, quantizable_tensors
    from quant.settings import RunSettings

_MODULES = {
    "BuildError": "errors",
    "ModelError": "errors",
    "QuantError": "errors",
    "Int8Model": "api",
    "build": "api",
    "compare": "api",
    "OnnxModel": "graph",
    "load_model": "graph",
    "collect_statistics": "activations",
    "run": "pipeline",
    "qdq_model_from_amax": "qdq",
    "quantizable_tensors": "qdq",
    "RunSettings": "settings",
}

__all__ = [
    "BuildError",
    "Int8Model",
    "ModelError",
    "OnnxModel",
    "QuantError",
    "RunSettings",
    "build",
    "collect_statistics",
    "compare",
    "load_model",
    "qdq_model_from_amax",
    "quantizable_tensors",
    "run",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute may be anything
    if name not in _MODULES:
        raise AttributeError(f"module 'quant' has no attribute '{name}'")
    return getattr(importlib.import_module(f"quant.{_MODULES[name]}"), name)
