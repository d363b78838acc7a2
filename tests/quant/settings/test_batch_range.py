import pytest

from quant.errors import BuildError
from quant.settings.batch_range import batch_range_from_text


@pytest.mark.parametrize(("text", "sizes"), [("1:8:64", (1, 8, 64)), ("4:4:4", (4, 4, 4))])
def test_batch_range_is_min_opt_max(text, sizes):
    found = batch_range_from_text(text)
    assert (found.smallest, found.usual, found.largest) == sizes


@pytest.mark.parametrize("text", ["8", "1:8", "8:1:64", "0:1:2", "1:64:8", "a:b:c", "1:2:3:4", "-1:2:3"])
def test_other_batch_ranges_are_refused(text):
    with pytest.raises(BuildError, match="dynamic batch: expected"):
        batch_range_from_text(text)
