"""Images that cannot be read: left out, named, counted, and remembered with the calibration."""

import pytest

from datasets.errors import TooManyUnreadableError
from tests.bad_images import BAD, empty


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_an_unreadable_image_is_left_out_and_named(obtain, colours, spoil):
    spoil(colours / "imgs" / "red" / "03.png")
    result, _ = obtain(colours, num_images=36)
    ((file, reason),) = result.quarantined
    assert file == "red/03.png"
    assert BAD[spoil] in reason
    assert result.images == 35


def test_unreadable_images_are_named_again_where_the_cache_is_used_again(obtain, colours):
    empty(colours / "imgs" / "red" / "03.png")
    obtain(colours, num_images=36)
    again, _ = obtain(colours, num_images=36)
    assert again.how == "reused"
    assert [file for file, _ in again.quarantined] == ["red/03.png"]


def test_max_bad_changes_how_many_are_put_up_with(obtain, colours):
    for name in ("red/03.png", "blue/04.png"):
        empty(colours / "imgs" / name)
    with pytest.raises(TooManyUnreadableError, match=r"2 of 36 images are unreadable, more than --max-bad 0\.03"):
        obtain(colours, num_images=36, max_bad=0.03)
    result, _ = obtain(colours, num_images=36, max_bad=0.06)
    assert {file for file, _ in result.quarantined} == {"red/03.png", "blue/04.png"}


def test_a_link_that_leads_nowhere_is_left_out(obtain, colours):
    image = colours / "imgs" / "red" / "03.png"
    image.unlink()
    image.symlink_to("nowhere.png")
    result, _ = obtain(colours, num_images=36)
    assert result.quarantined == (("red/03.png", "cannot be read: no such file or directory"),)
    assert result.images == 35
