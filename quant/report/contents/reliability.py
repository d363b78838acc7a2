"""Whether a build is right as often as it is sure: confidence against accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np

from quant.evaluation.accuracy import Evaluation

BINS = 10


def reliability(precision: str, evaluation: Evaluation) -> dict[str, Any] | None:
    """Confidence and accuracy in ten bins of confidence, and the expected calibration error.

    The expected calibration error is the mean of |accuracy - confidence| over the bins, weighted by their images
    (M. Naeini, G. Cooper, M. Hauskrecht, 2015, "Obtaining well calibrated probabilities using Bayesian binning").

    Returns:
        `ece`, and `bins` that hold images; accuracies and confidences are in per cent. None without labels.
    """
    correct, confidence = evaluation.correct, evaluation.confidence
    if correct is None or confidence is None or not np.isfinite(confidence).all():
        return None
    places = np.minimum((confidence.astype(np.float64) * BINS).astype(np.int64), BINS - 1)
    bins, error = [], 0.0
    for place in range(BINS):
        mine = places == place
        images = int(mine.sum())
        if not images:
            continue
        sure, right = 100 * float(confidence[mine].mean(dtype=np.float64)), 100 * float(correct[mine].mean())
        error += images * abs(right - sure)
        bins.append(
            {
                "low": 100 * place // BINS,
                "high": 100 * (place + 1) // BINS,
                "images": images,
                "confidence": round(sure, 3),
                "accuracy": round(right, 3),
            }
        )
    return {"precision": precision, "ece": round(error / evaluation.images, 4), "bins": bins}
