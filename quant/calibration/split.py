"""Which images calibrate and which are evaluated, where one set serves for both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets import sample_indices
from datasets.source import AnySource
from quant.progress import Console
from quant.settings.run_settings import RunSettings

USUAL_IMAGES = 512
_HELD_OUT = 4  # of so many images, one is never calibrated on unless the user says otherwise


def calibration_images(settings: RunSettings, source: AnySource, *, shared: bool) -> NDArray[np.int64]:
    """Indices of the images that calibrate, int64, in order.

    Where no other images are evaluated, a quarter is held out: a drop that is measured on the images that the scales
    were fitted to is too small. A number that was asked for and can be had is kept; a repetition of TensorRT's own
    calibration takes all that it is given.

    Args:
        settings: How many, which and for what.
        source: The images.
        shared: Are the images of `source` evaluated too?
    """
    total = len(source)
    wanted = settings.num_images
    count = min(USUAL_IMAGES if wanted is None else wanted, total)
    repeats = settings.match_tensorrt or settings.calibrator == "tensorrt" or settings.trust_cache
    if shared and not repeats and (wanted is None or wanted > total):
        count = max(1, min(count, total - -(-total // _HELD_OUT)))
    return sample_indices(source, count, sampling=settings.sampling, seed=settings.seed)


def evaluation_images(
    settings: RunSettings,
    source: AnySource,
    every: NDArray[np.int64],
    calibrating: NDArray[np.int64],
    console: Console,
) -> NDArray[np.int64]:
    """Indices of the images that are evaluated where calibration takes its own from the same source.

    Args:
        settings: Precision, and how many were asked for.
        source: The images.
        every: Those that can be evaluated, int64.
        calibrating: Those that calibrate, int64.
        console: Where warnings go.
    """
    if settings.precision != "int8":
        return every  # nothing is calibrated
    left = np.setdiff1d(every, calibrating)
    wanted = settings.num_images
    if len(left):
        if wanted is not None and wanted > len(calibrating):
            console.warn(
                f"{source.path}: {wanted} calibration images were asked for, {len(source)} are there; "
                f"{len(calibrating)} calibrate and {len(left)} are held out to be evaluated, give others with --eval"
            )
        return left
    if wanted is not None and wanted > len(source):
        console.warn(f"{source.path}: {wanted} calibration images were asked for, only {len(source)} are there")
    if not settings.trust_cache:
        console.warn(
            f"{source.path}: calibration uses all {len(every)} images that could be evaluated, so the same ones are "
            "evaluated and the measured drop may be too small; give other images with --eval, or calibrate on fewer "
            "with --num-images"
        )
    return every
