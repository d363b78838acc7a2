"""Statistics of activations, the four calibration algorithms and the calibration cache.

    from calib import EntropyCalibrator, MinMaxCalibrator, PercentileCalibrator, MSECalibrator

The names are imported on first use, so that `calib --help` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calib.algorithms import MSE, Algorithm, Entropy, MinMax, Percentile, algorithm_from_name
    from calib.caches.cache import CalibrationCache, cache_from_text, read_cache
    from calib.calibrator import (
        Calibrator,
        EntropyCalibrator,
        MinMaxCalibrator,
        MSECalibrator,
        PercentileCalibrator,
        calibrator_from_name,
    )
    from calib.errors import CacheError, CalibrationError, NonFiniteError
    from calib.histograms.histogram import Histogram
    from calib.histograms.statistics import Statistics, read_statistics, write_statistics

__version__ = "0.1.0"

_MODULES = {
    "MSE": "algorithms",
    "Algorithm": "algorithms",
    "Entropy": "algorithms",
    "MinMax": "algorithms",
    "Percentile": "algorithms",
    "algorithm_from_name": "algorithms",
    "CalibrationCache": "caches.cache",
    "cache_from_text": "caches.cache",
    "read_cache": "caches.cache",
    "Calibrator": "calibrator",
    "EntropyCalibrator": "calibrator",
    "MSECalibrator": "calibrator",
    "MinMaxCalibrator": "calibrator",
    "PercentileCalibrator": "calibrator",
    "calibrator_from_name": "calibrator",
    "CacheError": "errors",
    "CalibrationError": "errors",
    "NonFiniteError": "errors",
    "Histogram": "histograms.histogram",
    "Statistics": "histograms.statistics",
    "read_statistics": "histograms.statistics",
    "write_statistics": "histograms.statistics",
}

__all__ = [
    "MSE",
    "Algorithm",
    "CacheError",
    "CalibrationCache",
    "CalibrationError",
    "Calibrator",
    "Entropy",
    "EntropyCalibrator",
    "Histogram",
    "MSECalibrator",
    "MinMax",
    "MinMaxCalibrator",
    "NonFiniteError",
    "Percentile",
    "PercentileCalibrator",
    "Statistics",
    "__version__",
    "algorithm_from_name",
    "cache_from_text",
    "calibrator_from_name",
    "read_cache",
    "read_statistics",
    "write_statistics",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute may be anything
    if name not in _MODULES:
        raise AttributeError(f"module 'calib' has no attribute '{name}'")
    return getattr(importlib.import_module(f"calib.{_MODULES[name]}"), name)
