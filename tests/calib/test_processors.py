import pytest

from calib.processors import usable_processors


@pytest.mark.usefixtures("one_processor")
def test_processors_that_the_process_may_not_use_do_not_count():
    assert usable_processors() == 1
