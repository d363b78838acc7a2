import pytest

from quant.collectors.plan import images_in_part

MB = 1 << 20


@pytest.mark.parametrize(
    ("megabytes", "batch", "part"),
    [
        (1, 200, 40),  # 40 MB, and an even share of the batch
        (1, 64, 32),
        (1, 37, 37),
        (1, 83, 40),  # a prime number has none
        (15, 64, 4),  # 80 MB would hold 5: one more than an even share
        (15, 50, 5),
        (60, 16, 1),
        (500, 16, 1),
    ],
)
def test_how_many_images_are_run_at_a_time(megabytes, batch, part):
    assert images_in_part(megabytes * MB, 1 << 30, batch) == part


def test_fewer_images_are_run_at_a_time_where_memory_is_short():
    assert images_in_part(MB, 8 * MB, 64) == 8
    assert images_in_part(MB, MB // 2, 64) == 1
