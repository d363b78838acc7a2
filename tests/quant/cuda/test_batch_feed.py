import ctypes
import os
import signal
import threading

import numpy as np
import pytest

from calib.calibrator import EntropyCalibrator
from calib.errors import CalibrationError, NonFiniteError
from calib.interrupts import interrupts_deferred
from quant.cuda import device
from quant.cuda.batch_feed import CalibrationFeed, FeedInput
from tests.host_cuda import HostCuda

X = (FeedInput("x", (4, 2), "float32"),)


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    runtime = HostCuda()
    monkeypatch.setattr(device, "_runtime", lambda: runtime)
    return runtime


@pytest.fixture
def fed(batch_of):
    """Feeds batches of input `x` with four images of two values; gives what the network would read."""

    def feed(batches, inputs=X, names=("x",), advance=None):
        seen = []
        with CalibrationFeed(EntropyCalibrator(batches), inputs, advance) as feeding:
            while (pointers := feeding.next(list(names))) is not None:
                seen.append(
                    [values_at(pointer, i) for pointer, i in zip(pointers, inputs_by(inputs, names), strict=True)]
                )
        return seen, feeding

    return feed


def inputs_by(inputs, names):
    return [next(i for i in inputs if i.name == name) for name in names]


def values_at(pointer, wanted):
    size = int(np.prod(wanted.shape)) * np.dtype(wanted.dtype).itemsize
    memory = ctypes.string_at(pointer, size)
    return np.frombuffer(memory, wanted.dtype).reshape(wanted.shape)


def numbered(batch_of, count, size=4):
    """Batches 0, 1, ... whose values are the number of the batch."""
    return [batch_of(first=4 * i, x=np.full((size, 2), i, np.float32)) for i in range(count)]


def test_every_batch_arrives_once_in_order(fed, batch_of):
    seen, feeding = fed(numbered(batch_of, 7))
    assert [batch[0][0, 0] for batch in seen] == [0, 1, 2, 3, 4, 5, 6]
    assert all((batch[0] == batch[0][0, 0]).all() for batch in seen)
    assert (feeding.figures.batches, feeding.figures.images, feeding.figures.filled_up) == (7, 28, 0)
    assert feeding.error is None


def test_asking_again_after_the_end_gives_nothing_and_does_not_wait(batch_of):
    with CalibrationFeed(EntropyCalibrator(numbered(batch_of, 1)), X) as feeding:
        assert [feeding.next(["x"]) is None for _ in range(3)] == [False, True, True]


def test_inputs_are_matched_by_name_whatever_order_tensorrt_asks_in(fed, batch_of):
    inputs = (FeedInput("a", (2, 1), "float32"), FeedInput("b", (2, 3), "int32"))
    batch = batch_of(b=np.full((2, 3), 9, np.int32), a=np.full((2, 1), 5, np.float32))
    seen, _ = fed([batch], inputs, names=("b", "a"))
    assert [(array.shape, array.flat[0]) for array in seen[0]] == [((2, 3), 9), ((2, 1), 5)]


def test_ragged_last_batch_is_filled_up_with_its_own_images(fed, batch_of):
    last = batch_of(x=np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    seen, feeding = fed([*numbered(batch_of, 1), last])
    np.testing.assert_array_equal(seen[1][0], [[1, 2], [3, 4], [5, 6], [1, 2]])
    assert (feeding.figures.images, feeding.figures.filled_up) == (7, 1)


def test_progress_counts_images_and_not_the_filling(fed, batch_of):
    counts = []
    fed([*numbered(batch_of, 1), batch_of(x=np.zeros((3, 2), np.float32))], advance=counts.append)
    assert counts == [4, 3]


@pytest.mark.parametrize("error", [OSError("img7.png: truncated"), KeyboardInterrupt()])
def test_error_in_the_stream_ends_the_feeding_and_is_kept(fed, batch_of, cuda, error):
    def broken():
        yield from numbered(batch_of, 2)
        raise error

    seen, feeding = fed(broken())
    assert feeding.error is error
    assert len(seen) <= 2
    assert not cuda.live


def test_error_while_progress_is_shown_is_kept_too(fed, batch_of):
    def refuse(images):
        raise RuntimeError("the terminal is gone")

    seen, feeding = fed(numbered(batch_of, 3), advance=refuse)
    assert seen == []
    assert str(feeding.error) == "the terminal is gone"


def test_stop_ends_the_feeding_and_closes_the_stream(batch_of, cuda):
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield from numbered(batch_of, 1)
        finally:
            closed.set()

    with CalibrationFeed(EntropyCalibrator(endless()), X) as feeding:
        assert feeding.next(["x"]) is not None
        feeding.stop(KeyboardInterrupt())
        assert feeding.next(["x"]) is None
    assert closed.is_set()
    assert isinstance(feeding.error, KeyboardInterrupt)
    assert not cuda.live


def test_next_batch_is_decoded_while_this_one_is_in_use(batch_of):
    second_decoded = threading.Event()

    def stream():
        yield from numbered(batch_of, 1)
        second_decoded.set()
        yield from numbered(batch_of, 1)

    with CalibrationFeed(EntropyCalibrator(stream()), X) as feeding:
        assert feeding.next(["x"]) is not None
        assert second_decoded.wait(10)  # without asking for another batch


def test_batch_in_use_is_not_overwritten_by_the_ones_decoded_ahead(batch_of):
    decoded = [threading.Event() for _ in range(3)]

    def stream():
        for i, batch in enumerate(numbered(batch_of, 3)):
            decoded[i].set()
            yield batch

    with CalibrationFeed(EntropyCalibrator(stream()), X) as feeding:
        (pointer,) = feeding.next(["x"])
        assert decoded[1].wait(10)
        assert not decoded[2].wait(0.2)  # the third waits until the first is no longer needed
        assert (values_at(pointer, X[0]) == 0).all()


def test_200_batches_take_the_memory_of_two(batch_of, fed, cuda):
    seen, _ = fed(numbered(batch_of, 200))
    assert len(seen) == 200
    assert cuda.made["cudaMalloc"] == cuda.made["cudaMallocHost"] == 2
    assert not cuda.live


def test_nothing_stays_allocated_when_the_second_buffer_does_not_fit(batch_of, cuda):
    cuda.limit = 100  # the buffers of one batch take 64
    with pytest.raises(device.OutOfDeviceMemoryError):
        CalibrationFeed(EntropyCalibrator(numbered(batch_of, 1)), X)
    assert not cuda.live


def test_missing_input_is_named(fed, batch_of):
    _, feeding = fed([batch_of(pixels=np.zeros((4, 2), np.float32))])
    assert isinstance(feeding.error, CalibrationError)
    assert "expected input 'x', found pixels" in str(feeding.error)


def test_wrong_shape_names_the_image_and_both_shapes(fed, batch_of):
    _, feeding = fed([batch_of(x=np.zeros((4, 3), np.float32))])
    assert "'0.png'" in str(feeding.error)
    assert "[4, 2]" in str(feeding.error)
    assert "[4, 3]" in str(feeding.error)


def test_float_images_do_not_go_into_an_integer_input(fed, batch_of):
    _, feeding = fed([batch_of(x=np.zeros((4, 2), np.float32))], (FeedInput("x", (4, 2), "uint8"),))
    assert "expected uint8, found float32" in str(feeding.error)


def test_nan_names_the_image(fed, batch_of):
    values = np.zeros((4, 2), np.float32)
    values[2, 1] = np.nan
    _, feeding = fed([batch_of(x=values)])
    assert isinstance(feeding.error, NonFiniteError)
    assert "image '2.png'" in str(feeding.error)


def test_batches_larger_than_the_network_takes_are_cut(fed, batch_of):
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    counted = []
    seen, feeding = fed([batch_of(x=values)], advance=counted.append)
    np.testing.assert_array_equal(np.concatenate([batch[0] for batch in seen])[:10], values)
    assert counted == [4, 4, 2]
    assert (feeding.figures.images, feeding.figures.filled_up) == (10, 2)


def test_memory_that_a_running_build_may_still_read_is_left_alone(batch_of, cuda):
    with CalibrationFeed(EntropyCalibrator(numbered(batch_of, 3)), X) as feeding:
        feeding.next(["x"])
        feeding.abandon()
    assert "cudaFree" not in cuda.made
    assert feeding.next(["x"]) is None
    for thread in threading.enumerate():
        if thread.name == "calibration-feed":
            thread.join(10)
            assert not thread.is_alive()


def test_a_source_that_hangs_does_not_hold_up_ctrl_c(batch_of):
    released = threading.Event()

    class Hanging:
        def __iter__(self):
            yield from numbered(batch_of, 1)
            released.wait(60)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    key = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    feeding = CalibrationFeed(EntropyCalibrator(Hanging()), X)
    with pytest.raises(KeyboardInterrupt), interrupts_deferred(), feeding:
        assert feeding.next(["x"]) is not None
        key.start()
    assert feeding._thread.is_alive()  # it was not waited for
    released.set()
    feeding.close()
    signal.signal(signal.SIGINT, before)
