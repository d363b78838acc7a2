"""How many images are enough: for the scales, and for the verdict. Both come from the passes that were made anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.caches.convergence import ScalesOfPart, enough_images
from quant.evaluation.drop import agreement_with_interval, paired_drop
from quant.evaluation.sample_size import tells
from quant.report.contents.figures import rounded
from quant.report.result import RunResult

Document = dict[str, Any]
_SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)  # of the evaluated images


def convergence_from_run(result: RunResult) -> Document | None:
    """The key `convergence` of a report; None where nothing was calibrated, or its parts are not known.

    `scales` compares the scales of a part of the images with those of all; `verdict` shows the drop, or without labels
    the agreement, on parts of the evaluated images, drawn with the run's seed. `enough` is the fewest calibration
    images that would have done, null where all were needed.
    """
    calibration = result.calibration
    if calibration is None or not calibration.images or not calibration.convergence:
        return None
    parts = calibration.convergence
    enough = enough_images(parts)
    return {
        "images": calibration.images,
        "enough": enough,
        "text": told(parts, calibration.images, enough, len(calibration.cache.scales)),
        "scales": [_row(part) for part in parts],
        "verdict": _verdict(result),
    }


def told(parts: Sequence[ScalesOfPart], images: int, enough: int | None, tensors: int) -> str:
    """The finding in a sentence."""
    last = parts[-1]
    rest = images - last.images
    looked_at = f"{last.tensors} scales" if last.tensors == tensors else f"{last.tensors} scales looked at"
    if not last.moved:
        moves = f"the last {rest} moved no scale by more than 1 %"
        moves += "" if last.tensors == tensors else f" (of {looked_at})"
    else:
        moves = (
            f"the last {rest} moved {last.moved} of {looked_at} by more than 1 %, '{last.tensor}' by "
            f"{100 * last.largest:.1f} %"
        )
        if last.suffices:
            moves += f", but no tensor's noise by more than {max(last.noise_db, 0.01):.2f} dB"
        else:
            moves += f", and a tensor's noise by {last.noise_db:.1f} dB"
    if enough is None:
        return f"{images} images may be too few: {moves}"
    fewer = f"; {enough} would have done" if enough < last.images else ""
    return f"{images} images are enough: {moves}{fewer}"


def _row(part: ScalesOfPart) -> Document:
    row = asdict(part) | {"suffices": part.suffices}
    return row | {
        "largest": rounded(100 * part.largest, 4),
        "median": rounded(100 * part.median, 4),
        "noise_db": rounded(part.noise_db, 4),
    }


def _verdict(result: RunResult) -> list[Document]:
    """The examined build's drop on parts of the evaluated images; without labels, its agreement."""
    evaluations = result.measured.evaluations
    mine = evaluations.get("int8")
    if mine is None or result.measured.metric is not None:
        return []
    # In the source's order, the first images may all be of one class.
    order = np.argsort(np.random.PCG64(result.settings.seed).random_raw(mine.images), kind="stable")
    rows = []
    for images in sorted({max(1, round(share * mine.images)) for share in _SHARES}):
        row = _figures(result, order[:images])
        if row is not None:
            rows.append({"images": images, **row})
    return rows


def _figures(result: RunResult, some: NDArray[np.intp]) -> Document | None:
    mine, baseline = result.measured.evaluations["int8"], result.measured.evaluations[result.baseline]
    if mine.correct is not None and baseline.correct is not None:
        drop = paired_drop(baseline.correct[some], mine.correct[some])
        return {
            "figure": "drop",
            "value": rounded(drop.points, 4),
            "interval": [rounded(drop.low, 4), rounded(drop.high, 4)],
            "tells": tells(drop, result.settings.max_drop),
        }
    if mine.predicted is None or baseline.predicted is None:
        return None
    same, low, high = agreement_with_interval(baseline.predicted[some], mine.predicted[some])
    return {"figure": "agreement", "value": rounded(same, 4), "interval": [rounded(low, 4), rounded(high, 4)]}
