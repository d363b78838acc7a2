import pytest

from quant.errors import BuildError
from quant.tensorrt.building.options import BuilderOptions, without_spoiled_timings

SPOILED = "1: [myelinCache.h::deserializeFromBuffer::52] Error Code 1: Myelin (Myelin error from unknown graph)"


@pytest.fixture
def timings(tmp_path):
    path = tmp_path / "timing.cache"
    path.write_bytes(b"measured")
    return path


def failing_with(reason):
    """A build that fails if it has timings."""

    def build(options):
        if options.timing_cache is not None:
            raise BuildError(reason)
        return options

    return build


def test_timings_that_tensorrt_cannot_read_are_dropped_and_that_is_said(timings):
    notes = []
    built = without_spoiled_timings(failing_with(SPOILED), BuilderOptions(level=2, timing_cache=timings), notes.append)
    assert built == BuilderOptions(level=2)
    assert not timings.exists()
    assert len(notes) == 1
    assert str(timings) in notes[0]
    assert SPOILED in notes[0]


def test_another_failure_keeps_the_timings(timings):
    with pytest.raises(BuildError, match="no kernel"):
        without_spoiled_timings(failing_with("no kernel"), BuilderOptions(timing_cache=timings), None)
    assert timings.read_bytes() == b"measured"


def test_a_failure_without_timings_is_the_models(tmp_path):
    def build(options):
        raise BuildError(SPOILED)

    with pytest.raises(BuildError, match="Myelin"):
        without_spoiled_timings(build, BuilderOptions(timing_cache=tmp_path / "none"), None)


def test_timings_are_kept_when_the_build_fails_without_them_too(timings):
    def build(options):
        raise BuildError(SPOILED)

    with pytest.raises(BuildError, match="Myelin"):
        without_spoiled_timings(build, BuilderOptions(timing_cache=timings), None)
    assert timings.read_bytes() == b"measured"


def test_a_build_that_goes_well_keeps_its_timings(timings):
    options = BuilderOptions(timing_cache=timings)
    assert without_spoiled_timings(lambda given: given, options, None) is options
    assert timings.read_bytes() == b"measured"
