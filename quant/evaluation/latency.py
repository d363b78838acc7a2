"""How long a batch takes, with the builds timed in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from quant.backend import Latency, Runnable, TimesItself, TimesLayers

_LATENCY_SECONDS = 2.0  # per build
_LATENCY_RUNS = (5, 50)  # at least, at most


def measure_latency(
    builds: Mapping[str, Runnable], inputs: Mapping[str, NDArray[Any]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, Latency]:
    """Time all builds on the same batch, in turn, so that changes in the machine's speed affect them equally.

    One run of each warms it up. Builds are then timed for about two seconds each, at least 5 and at most 50 times.
    Builds that can time themselves do so.

    Args:
        builds: Builds by name.
        inputs: One batch by input name.
        clock: Monotonic clock, in seconds.
    """
    if builds and all(isinstance(build, TimesItself) for build in builds.values()):
        return {name: build.latency(inputs) for name, build in builds.items() if isinstance(build, TimesItself)}
    batch = len(next(iter(inputs.values())))
    seconds: dict[str, list[float]] = {name: [] for name in builds}
    for build in builds.values():
        build.run(inputs)
    while True:
        waiting = [name for name, times in seconds.items() if not _timed_enough(times)]
        if not waiting:
            break
        for name in waiting:
            start = clock()
            builds[name].run(inputs)
            seconds[name].append(clock() - start)
    return {name: Latency(1000 * statistics.median(times), batch, len(times)) for name, times in seconds.items()}


def measure_layers(builds: Mapping[str, Runnable], inputs: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, float]]:
    """Milliseconds of each layer, by build and layer, of the builds that can say them.

    Args:
        builds: Builds by name.
        inputs: One batch by input name.
    """
    return {
        name: {layer: 1000 * seconds for layer, seconds in build.layer_seconds(inputs).items()}
        for name, build in builds.items()
        if isinstance(build, TimesLayers)
    }


def _timed_enough(times: list[float]) -> bool:
    least, most = _LATENCY_RUNS
    return len(times) >= most or (len(times) >= least and sum(times) >= _LATENCY_SECONDS)
