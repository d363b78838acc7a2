from calib.histograms import kernels
from calib.histograms.loading import begin_loading


def test_what_counts_is_loaded_once_and_in_the_background():
    loading = begin_loading()
    assert begin_loading() is loading
    assert loading.result(timeout=300) is None
    assert kernels._count._function is not None
