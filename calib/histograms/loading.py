"""Loading the compiled loops before they are needed.

The first call of any of them imports numba and loads what was compiled before, which takes half a second or more.
Whoever knows that it will count says so early, and opens images and models in the meantime.
"""

from __future__ import annotations

import functools
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from calib.histograms.histogram import SplitHistogram


@functools.cache
def begin_loading() -> Future[None]:
    """Begin to load what counts, once in a process, in a thread of its own.

    Nothing has to wait for it: a call that comes earlier loads the same by itself. What goes wrong does so there too.
    """
    pool = ThreadPoolExecutor(1, "calib-load")
    try:
        return pool.submit(_count_one)
    finally:
        pool.shutdown(wait=False)


def _count_one() -> None:
    SplitHistogram().add(np.zeros(1, np.float32))
