"""TensorRT's log while builds go on beside each other: each keeps its own lines."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from quant.tensorrt.log import _SECTIONS, log_section


def test_a_thread_logs_for_its_own_work():
    met = Barrier(2, timeout=120)

    def work(name):
        with log_section() as log:
            met.wait()
            _SECTIONS.add(f"{name} failed", is_error=True)
            _SECTIONS.add(f"{name} is slow", is_error=False)
            met.wait()
        return log.errors, log.warnings

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, "ab")) == [(["a failed"], ["a is slow"]), (["b failed"], ["b is slow"])]


def test_a_thread_of_nobodys_logs_for_all_and_one_that_is_followed_for_its_work():
    with log_section() as log, log_section() as inner, ThreadPoolExecutor(1) as pool:
        pool.submit(_SECTIONS.add, "of TensorRT's own thread", is_error=True).result()

        def build():
            with inner.followed():
                _SECTIONS.add("of the build", is_error=True)

        pool.submit(build).result()
    assert log.errors == ["of TensorRT's own thread"]
    assert inner.errors == ["of TensorRT's own thread", "of the build"]
