"""Workers on Ray with a GPU each: how much faster two are than one, from decoded memory, with start-up apart."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np

from calib.calibrator import EntropyCalibrator
from datasets import BatchStream
from datasets.arrays.memory import in_memory
from gpu_sections.bench import Row
from gpu_sections.collection import Subject
from quant.collectors.ray_collector import RayCollector
from quant.tensorrt.building.options import BuilderOptions

_HELD = 1 << 13  # images in memory, which are taken again and again
_LIMIT = 4 << 30  # bytes of activations held
_ENGINE = "engine and kernels"


def two_against_one(subject: Subject, images: int) -> Iterator[Row]:
    """Collect the statistics of the same images with one worker, with two, and with one again.

    A worker's pass begins when its engine and kernels are ready. The rate is that of the slower worker's pass: the two
    begin about the same time, and the result is there when both have ended.

    Args:
        subject: Model and images.
        images: How many are run in all; so many that a pass is long beside the difference of the workers' start-up.
    """
    stream = subject.stream(min(_HELD, images))
    inputs = [batch.inputs[subject.model.inputs[0].name] for batch in stream]
    held = in_memory(np.concatenate(inputs), subject.model.inputs, 1 << 40)
    rates: dict[int, list[float]] = {1: [], 2: []}
    digests = set()
    for workers in (1, 2, 1):
        indices = np.arange(images) % len(held)
        calibrator = EntropyCalibrator(BatchStream(held, indices, batch_size=subject.batch))
        collector = RayCollector(workers, memory_limit=_LIMIT, gpu=BuilderOptions(level=0))
        start = time.perf_counter()
        collector.collect(subject.model, calibrator)
        seconds = time.perf_counter() - start
        passes = [sum(share.values()) - share[_ENGINE] for share in collector.of_shares]
        rates[workers].append(images / max(passes))
        digests.add(tuple(sorted((name, h.digest()) for name, h in calibrator.statistics.histograms.items())))
        yield {
            "model": subject.model.path.name,
            "workers": workers,
            "images": images,
            "images/s, engines ready": round(rates[workers][-1]),
            "s, passes": ", ".join(f"{each:.2f}" for each in passes),
            "s, engines": ", ".join(f"{share[_ENGINE]:.2f}" for share in collector.of_shares),
            "s, all with Ray's start": round(seconds, 2),
        }
    yield {
        "model": subject.model.path.name,
        "two workers against one, times": round(statistics.mean(rates[2]) / statistics.mean(rates[1]), 2),
        "counts": "same bits" if len(digests) == 1 else "differ (engines may add in another order)",
    }
