import numpy as np
import pytest

from calib.histograms.histogram import Histogram


@pytest.fixture(scope="session")
def histogram_of():
    """The histogram of some values."""

    def make(*arrays):
        histogram = Histogram()
        for array in arrays:
            histogram.add(np.asarray(array, np.float32))
        return histogram

    return make


@pytest.fixture(scope="session")
def assert_same_histogram():
    """Check that two histograms agree in everything that they can be asked for."""

    def check(found, expected):
        np.testing.assert_array_equal(found.signed_counts, expected.signed_counts)
        for name in ("widths", "width", "count", "zeros", "min", "max", "abs_max"):
            assert getattr(found, name) == getattr(expected, name), name

    return check
