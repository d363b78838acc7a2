import pytest

from quant.errors import BuildError
from quant.settings.batch_range import BatchRange, SideRange, batch_range_from_text


@pytest.mark.parametrize(("text", "sizes"), [("1:8:64", (1, 8, 64)), ("4:4:4", (4, 4, 4))])
def test_batch_range_is_min_opt_max(text, sizes):
    found = batch_range_from_text(text)
    assert (found.smallest, found.usual, found.largest) == sizes


@pytest.mark.parametrize(
    "text",
    [
        "8",
        "1:8",
        "1:2:3,4:5:6",
        "1:2:3,4:5:6,7,8",
        "1:2:3,a,4",
        "1:2:3,,4",
        "8:1:64",
        "0:1:2",
        "1:64:8",
        "a:b:c",
        "1:2:3:4",
        "-1:2:3",
    ],
)
def test_other_batch_ranges_are_refused(text):
    with pytest.raises(BuildError, match="dynamic batch: expected"):
        batch_range_from_text(text)


@pytest.mark.parametrize(("sizes", "is_static", "text"), [((1, 8, 64), False, "1:8:64"), ((4, 4, 4), True, "4")])
def test_a_range_of_one_size_is_static_and_is_shown_as_that_size(sizes, is_static, text):
    found = BatchRange(*sizes)
    assert (found.is_static, str(found)) == (is_static, text)


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 3), (1, 3, 2)])
def test_sizes_that_do_not_rise_from_one_up_are_refused(sizes):
    with pytest.raises(BuildError, match="dynamic batch: expected 1 <= MIN"):
        BatchRange(*sizes)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1:4:8,256:320:640,128:160:320", "1:4:8,256:320:640,128:160:320"),
        ("4, 48, 32:160:320", "4,48,32:160:320"),
        ("2:2:2,32:32:32,1:2:3", "2,32,1:2:3"),
    ],
)
def test_heights_and_widths_have_ranges_behind_the_batch_s(text, shown):
    found = batch_range_from_text(text)
    assert str(found) == shown
    assert found.sides is not None
    assert not found.is_static
    assert batch_range_from_text(str(found)) == found


@pytest.mark.parametrize("text", ["1:1:1,0:1:2,4", "1:1:1,4,8:4:16"])
def test_sides_that_do_not_rise_are_refused(text):
    with pytest.raises(BuildError, match="dynamic size: expected 1 <= MIN <= OPT <= MAX, found"):
        batch_range_from_text(text)
    with pytest.raises(BuildError, match="dynamic size"):
        SideRange(3, 2, 4)
