"""Loading the compiled loops before they are needed.

The first call of any of them loads it, which takes a tenth of a second, and seconds where it has yet to be compiled.
Whoever knows that it will count says so early, and opens images and models in the meantime.
"""

from __future__ import annotations

import functools
from concurrent.futures import Future, ThreadPoolExecutor

from calib.histograms import kernels


@functools.cache
def begin_loading() -> Future[None]:
    """Begin to load what counts, once in a process, in a thread of its own.

    Nothing has to wait for it: a call that comes earlier loads the same by itself. What goes wrong does so there too.
    """
    pool = ThreadPoolExecutor(1, "calib-load")
    try:
        return pool.submit(kernels.load)
    finally:
        pool.shutdown(wait=False)
