"""The compiled loops write at computed places: hostile values against NumPy, and nothing outside their arrays."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calib.entropy import SEARCH_BINS
from calib.errors import NonFiniteError
from calib.histograms import kernels
from calib.histograms.counting import Counts
from calib.histograms.first_batch import FirstBatchHistogram, largest_magnitude
from calib.histograms.histogram import BINS, Histogram
from calib.histograms.split_histogram import ArrayGroup, SplitHistogram

F32 = np.finfo(np.float32)
CHUNK = kernels.CHUNK
SIZES = [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 16 * CHUNK - 1, 16 * CHUNK, 16 * CHUNK + 1]
EDGES = sorted({0, 1, *(size + step for size in SIZES for step in (-1, 0))})


def neighbours(value):
    """A float32 and its two neighbours."""
    value = np.float32(value)
    with np.errstate(over="ignore"):
        around = [np.nextafter(value, np.float32(-np.inf)), value, np.nextafter(value, np.float32(np.inf))]
    return [float(found) for found in around if np.isfinite(found)]


special = st.sampled_from([0.0, -0.0, float(F32.smallest_subnormal), float(F32.tiny), float(F32.max), 2.0**-120, 6.0])
power = st.integers(-149, 127).map(lambda exponent: 2.0**exponent)
hostile = (
    st.tuples(special | power, st.sampled_from([0, 1, 2]), st.sampled_from([1, -1])).map(
        lambda drawn: drawn[2] * neighbours(drawn[0])[drawn[1] % len(neighbours(drawn[0]))]
    )
) | st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def batches(draw):
    """One to three arrays, each noise of a scale of its own, with hostile values at hostile places."""
    arrays = []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(0, 40) | st.sampled_from(SIZES))
        noise = np.random.default_rng(draw(st.integers(0, 99))).normal(size=size)
        scale = draw(st.just(0.0) | st.integers(-150, 127).map(lambda exponent: 2.0**exponent))
        values = np.clip(noise * scale, F32.min, F32.max).astype(np.float32)
        places = st.integers(0, size - 1) | st.sampled_from([edge for edge in EDGES if edge < size]) if size else None
        for place, value in draw(st.lists(st.tuples(places, hostile), max_size=12)) if size else []:
            values[place] = value
        arrays.append(values)
    return arrays


def smallest_width(magnitudes):
    """The smallest power of two, from 2^-120 on, whose BINS bins hold the largest magnitude."""
    largest = float(magnitudes.max(initial=0))
    return 2.0 ** max(math.frexp(largest)[1] - int(math.log2(BINS)), -120) if largest else 2.0**-120


def assert_is_numpy_s(histogram, values):
    for row, width, kept in zip(histogram.signed_counts, histogram.widths, (values < 0, values >= 0), strict=True):
        magnitudes = np.abs(values[kept]).astype(np.float64)
        assert width == smallest_width(magnitudes)
        np.testing.assert_array_equal(row, np.histogram(magnitudes, np.arange(BINS + 1) * width)[0])
    assert histogram.zeros == np.count_nonzero(values == 0)
    assert (histogram.min, histogram.max) == (float(values.min(initial=math.inf)), float(values.max(initial=-math.inf)))


@settings(max_examples=150)
@given(batches(), st.data())
def test_any_finite_values_are_counted_as_numpy_counts_them(arrays, data):
    values = np.concatenate(arrays)
    if not len(values):
        return
    at_a_value = st.integers(0, len(values) - 1).map(lambda i: abs(float(values[i])))
    limit = data.draw(st.sampled_from([math.inf, 6.0]) | power | hostile.map(abs) | at_a_value)
    plain, split = Histogram(), SplitHistogram(limit or 1.0)
    for array in arrays:
        plain.add(array)
        split.add(array)
    assert_is_numpy_s(plain, values)
    assert_is_numpy_s(split.whole(), values)
    assert_is_numpy_s(split.clipped(), np.clip(values, 0, np.float32(limit or 1.0)))


@settings(max_examples=60)
@given(
    batches(), st.sampled_from([1.0, 6.0, 2.0**-130, float(F32.max), math.inf]), st.sampled_from([np.int64, np.uint32])
)
def test_nothing_is_written_outside_the_counts(arrays, limit, dtype):
    rows = 2 if limit == math.inf else 3
    guarded = np.full((rows + 2, BINS), 7, dtype)
    counts = guarded[1:-1]
    counts[:] = 0
    guarded_tables = np.full((kernels.TABLES + 2, kernels.ROWS, BINS), 7, np.uint32)
    tables = guarded_tables[1:-1]
    tables[:] = 0
    slots = np.full((2, kernels.STATE_SLOTS + 2), -7, np.int64)
    own, state = slots[:, 1:-1]
    state[:] = kernels.empty_state()
    counting = kernels.Tables(tables, own)
    place = kernels.place_of_counts(limit, counts, state)
    for array in arrays:
        assert counting.run_one(kernels.job(array, place, kernels.ACCUMULATE)) == -1
        assert tables.sum() == len(array)
        counting.run_one(kernels.job(array, place, kernels.JOIN))
        assert not tables.any()
    jobs = kernels.jobs([kernels.job(array, place) for array in arrays])
    counting.run(jobs)
    assert (jobs[:, kernels.FOUND] == -1).all()
    assert not tables.any()
    assert (guarded_tables[[0, -1]] == 7).all()
    assert counts.sum() == 2 * sum(map(len, arrays))
    assert (counts >= 0).all()
    assert (guarded[[0, -1]] == 7).all()
    assert (slots[:, [0, -1]] == -7).all()


@settings(max_examples=40)
@given(batches(), batches(), st.sampled_from([1.0, 6.0, 2.0**-130, math.inf]))
def test_tables_begun_before_others_are_joined_give_the_same_counts(early, late, limit):
    """As when two threads count a tensor at a time: the widths may have grown on either side in the meantime."""
    values = np.concatenate([*early, *late])
    if not len(values):
        return
    counted = SplitHistogram(limit)
    begun = []
    for array in early:
        tables = kernels.Tables.of(BINS)
        tables.run_one(kernels.job(array, counted._place, kernels.ACCUMULATE))
        begun.append((tables, len(array)))
    for array in late:
        counted.add(array)
    for tables, held in reversed(begun):
        counted._join(tables, held)
    assert_is_numpy_s(counted.whole(), values)
    if limit < math.inf:
        assert_is_numpy_s(counted.clipped(), np.clip(values, 0, np.float32(limit)))


@pytest.mark.parametrize("limit", [math.inf, 0.5])
def test_neither_tables_nor_counts_hold_more_than_they_can(monkeypatch, limit):
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    values[2900:] *= 50  # later values widen the bins of earlier ones
    held, count = [], SplitHistogram._count
    monkeypatch.setattr(kernels, "MOST", 700)
    monkeypatch.setattr(
        SplitHistogram, "_count", lambda self, part, *rest: held.append(part.size) or count(self, part, *rest)
    )
    counted = SplitHistogram(limit)
    for part in np.split(values, [300, 600, 2900]):
        counted.add(part)
        assert counted._counts.sum() <= 700
    assert (sum(held), max(held)) == (5000, 700)
    assert_is_numpy_s(counted.whole(), values)
    if limit < math.inf:
        assert_is_numpy_s(counted.clipped(), np.clip(values, 0, np.float32(limit)))
    with pytest.raises(NonFiniteError) as caught:  # its position in the array, not in the chunk
        counted.add(np.where(np.arange(5000) == 1234, np.float32(np.nan), values))
    assert caught.value.index == 1234


@pytest.mark.parametrize("together", [True, False])
def test_an_interrupt_leaves_nothing_that_is_counted_later(monkeypatch, together):
    """Ctrl-C between counting and joining, or right after both: the tables may still hold values."""
    values, counted = np.ones(100, np.float32), SplitHistogram()
    run = kernels.Tables.run

    def interrupted(*arguments):
        run(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(kernels.Tables, "run", interrupted)
        ArrayGroup({"x": counted}, {"x": values}).add({"x": values}) if together else counted.add(values)
    assert not counted._lock.locked()
    for _ in range(3):
        after = SplitHistogram()
        after.add(values[:7])
        assert after.whole().count == 7


@settings(max_examples=25)
@given(batches(), st.sampled_from([1.0, 6.0, math.inf]), st.sampled_from(["free", "busy", "packed", "full"]))
def test_arrays_counted_in_one_call_count_as_each_alone(arrays, limit, case):
    """Also where another thread is at one of the tensors, or where one is packed or has nearly too many values."""
    names = {str(i): array for i, array in enumerate(arrays)}
    alone, together = ({name: SplitHistogram(limit) for name in names} for _ in range(2))
    if case == "busy":
        together["0"].share(BusyLock())
    elif case == "packed":
        together["0"].pack()
    elif case == "full":
        together["0"]._held = kernels.MOST
    group = ArrayGroup(together, names)
    for _ in range(2):
        for name, array in names.items():
            alone[name].add(array)
        assert group.add(names) == {}
        assert group.add(names, wait=False) == (None if case == "busy" else {})
    for name, array in names.items():
        if case != "busy":
            for _ in range(2):
                alone[name].add(array)
        assert alone[name].whole().digest() == together[name].whole().digest()
        assert together[name].whole().count == (2 if case == "busy" else 4) * len(array)


def test_in_one_call_each_array_has_an_error_of_its_own():
    broken = np.ones(9000, np.float32)
    broken[5000] = np.nan
    arrays = {"broken": broken, "whole": np.ones(9000, np.float32), "late": broken[4096:]}
    histograms = {name: SplitHistogram() for name in arrays}
    errors = ArrayGroup(histograms, arrays).add(arrays)
    assert {name: (error.index, error.counted) for name, error in errors.items()} == {
        "broken": (5000, 4096),
        "late": (904, 0),
    }
    assert [histogram.whole().count for histogram in histograms.values()] == [4096, 9000, 0]


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.float32])
def test_arrays_of_another_form_are_read_anew_each_time(kind):
    """Their float32 form is a copy, which would be counted in place of what they hold later."""
    array = np.ones((50, 40), kind)[:, ::2]
    counted = {"x": SplitHistogram()}
    group = ArrayGroup(counted, {"x": array})
    for value in (1.0, 3.0):
        array[:] = value
        assert group.add({"x": array}) == {}
    assert (counted["x"].whole().max, counted["x"].whole().count) == (3.0, 2000)


@pytest.mark.parametrize("values", [(3.0,), (3.0, -1.0), (3.0, 3.0, -1.0, 2.0)])
def test_equal_values_in_a_row_are_counted_as_others(values):
    """They go to a second table, whose counts must all come back, also where only a part of the chunks has some."""
    array = np.concatenate(
        [np.tile(np.float32(values), 3000), np.random.default_rng(1).normal(size=CHUNK), np.tile(np.float32(values), 9)]
    ).astype(np.float32)
    counted = SplitHistogram()
    for _ in range(2):
        assert ArrayGroup({"x": counted}, {"x": array}).add({"x": array}) == {}
    assert_is_numpy_s(counted.whole(), np.tile(array, 2))


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        (np.zeros((2, BINS), np.uint32)[:, ::2], kernels.empty_state()),
        (np.zeros((2, BINS), np.float32), kernels.empty_state()),
        (np.zeros((2, BINS), np.uint32), kernels.empty_state()[:-1]),
        (np.zeros((2, BINS), np.uint32), kernels.empty_state().astype(np.int32)),
        (np.broadcast_to(np.uint32(0), (2, BINS)), kernels.empty_state()),
    ],
)
def test_compiled_code_gets_no_memory_of_another_form(counts, state):
    with pytest.raises(ValueError, match="expected contiguous counts"):
        kernels.place_of_counts(1.0, counts, state)


class BusyLock:
    """Held by another thread whenever somebody asks, and free as soon as somebody waits."""

    def acquire(self, *, blocking):
        return blocking

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@settings(max_examples=30)
@given(st.sampled_from(SIZES), st.data())
def test_the_first_value_that_is_not_finite_is_found_wherever_it_is(value, size, data):
    where = st.integers(0, size - 1) | st.sampled_from([edge for edge in EDGES if edge < size])
    first = data.draw(where)
    values = np.full(size, data.draw(hostile), np.float32)
    values[first] = value
    values[data.draw(st.integers(first, size - 1))] = -value
    values[first] = value
    for histogram in (Histogram(), SplitHistogram(1.0)):
        with pytest.raises(NonFiniteError) as caught:
            histogram.add(values)
        assert caught.value.index == first


def counts_on_tensorrt_s_grid(arrays):
    """The rule of `calib.histograms.first_batch`, in NumPy; the range is always a float32."""
    limit, counts = np.float32(0), np.zeros(SEARCH_BINS, np.int64)
    for magnitudes in map(np.abs, arrays):
        largest = magnitudes.max(initial=np.float32(0))
        limit = limit or largest
        while largest > limit:
            counts = np.concatenate([counts.reshape(-1, 2).sum(axis=1), np.zeros(SEARCH_BINS // 2, np.int64)])
            limit = np.float32(limit * np.float32(2))
        if limit:
            # For a range under 6e-36, 2048 / R is infinite as a float32; zero times infinity is not a bin.
            kind = np.float32 if SEARCH_BINS / float(limit) <= float(F32.max) else np.float64
            bins_per_unit = kind(SEARCH_BINS) / kind(limit)
            index = np.minimum((magnitudes * bins_per_unit).astype(np.int64), SEARCH_BINS - 1)
            counts += np.bincount(index, minlength=SEARCH_BINS)
    return counts, float(limit)


@settings(max_examples=100)
@given(batches().filter(lambda arrays: all(np.abs(array).max(initial=0) < 2.0**126 for array in arrays)))
@example([np.array([0.0, 1e-40, -1e-40], np.float32)])
@example([np.array([0.0, 1e-45], np.float32), np.array([1.0, 0.0], np.float32)])
def test_tensorrt_s_histogram_holds_any_magnitude(arrays):
    histogram = FirstBatchHistogram()
    for array in arrays:
        histogram.start_batch()
        histogram.add(array, largest_magnitude(array))
    counts, limit = counts_on_tensorrt_s_grid(arrays)
    assert histogram.limit == limit
    np.testing.assert_array_equal(histogram.counts, counts)


def parts_of(rng, sizes):
    return {
        f"t{i}": (rng.normal(size=size) * rng.choice([0.1, 1, 30])).astype(np.float32) for i, size in enumerate(sizes)
    }


def assert_counted(counts, parts):
    for name, histogram in counts.histograms.items():
        assert_is_numpy_s(histogram.whole(), np.concatenate([part[name] for part in parts]))


def test_many_threads_count_parts_as_one_after_the_other_would(monkeypatch):
    """Each with arrays of its own, filled again and again; tensors that others are at come later."""
    monkeypatch.setattr("calib.histograms.counting._GROUP", 30_000)
    rng = np.random.default_rng(3)
    threads, rounds, sizes = 6, 4, [50_000, 20_000, 9_000, 7_000, 100, 1]
    counts = Counts({f"t{i}": 1.0 if i % 2 else math.inf for i in range(len(sizes))}, first_batch=False)
    done, lock = [], threading.Lock()

    def work(seed):
        own, buffers = np.random.default_rng(seed), parts_of(rng, sizes)
        for _ in range(rounds):
            for name, values in parts_of(own, sizes).items():
                buffers[name][:] = values
            counts.count(buffers, ["image"], None, 1)
            with lock:
                done.append({name: values.copy() for name, values in buffers.items()})

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    assert len(done) == threads * rounds
    assert_counted(counts, done)


def test_an_array_that_takes_another_s_place_is_counted_itself():
    """Its id may be that of one that is gone, whose memory is no longer its own; of so many, some ids come twice."""
    counts, done = Counts({"t0": math.inf}, first_batch=False), []
    for i in range(300):
        values = np.full(1 + i * 37 % 97, i, np.float32)
        counts.count({"t0": values}, ["image"], None, 1)
        done.append(values.tolist())
        del values
    assert_counted(counts, [{"t0": np.float32(values)} for values in done])
