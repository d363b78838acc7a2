import dataclasses
import pickle
from hashlib import sha256

import pytest

from quant.errors import BuildError
from quant.tensorrt.engines.engine_file import (
    EngineIdentity,
    StaleEngineError,
    read_description,
    read_engine,
    scales_sha256,
    sidecar_path,
    sidecar_text,
)
from quant.tensorrt.engines.engine_model import check_origin

WANTED = EngineIdentity("8.6.0", "NVIDIA H200", "9.0", "a" * 64, "int8", "b" * 64, "64", "{}")


@pytest.fixture
def stored(tmp_path):
    """An engine file with a description of that identity."""

    def store(identity=WANTED, data=b"engine"):
        path = tmp_path / "model.int8.engine"
        path.write_bytes(data)
        sidecar_path(path).write_text(sidecar_text(identity, data, {"layers": 3}))
        return path

    return store


def test_engine_that_fits_is_read(stored):
    assert read_engine(stored(), WANTED) == b"engine"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("tensorrt", "10.3.0", "TensorRT was 10.3.0, now 8.6.0"),
        ("gpu", "NVIDIA T4", "the GPU was NVIDIA T4, now NVIDIA H200"),
        ("model", "c" * 64, "the model"),
        ("scales", "d" * 64, "the calibration cache"),
        ("batch", "1:8:64", "the batch size was 1:8:64, now 64"),
        ("options", '{"strict_int8": true}', "the build options"),
    ],
)
def test_engine_of_another_origin_is_refused_and_says_what_differs(stored, field, value, words):
    path = stored(dataclasses.replace(WANTED, **{field: value}))
    with pytest.raises(StaleEngineError, match=words) as caught:
        read_engine(path, WANTED)
    assert str(path) in str(caught.value)
    assert str(caught.value) == f"{caught.value.reason}; rebuild"


def test_engine_that_is_not_the_described_one_is_refused(stored):
    path = stored()
    path.write_bytes(b"engine of someone else")
    with pytest.raises(StaleEngineError, match="is not the engine that"):
        read_engine(path, WANTED)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"identity": {"gpu": 1}}', "\x00"])
def test_damaged_description_is_refused(stored, text):
    path = stored()
    sidecar_path(path).write_text(text)
    with pytest.raises(StaleEngineError, match="expected an engine's description"):
        read_engine(path, WANTED)


def test_engine_without_description_is_refused(stored):
    path = stored()
    sidecar_path(path).unlink()
    with pytest.raises(StaleEngineError, match="cannot be read"):
        read_engine(path, WANTED)


def test_hash_of_scales_ignores_their_order_and_sees_their_last_bit():
    assert scales_sha256({"a": 0.5, "b": 0.25}) == scales_sha256({"b": 0.25, "a": 0.5})
    assert scales_sha256({"a": 0.5}) != scales_sha256({"a": 0.5 + 2**-24})


def test_what_lies_beside_an_engine_tells_what_it_is(stored):
    path = stored()
    assert read_description(path, sha256(b"engine").hexdigest()) == (WANTED, {"layers": 3})
    with pytest.raises(StaleEngineError, match=r"is not the engine that model.int8.engine.json describes"):
        read_description(path, sha256(b"another").hexdigest())
    sidecar_path(path).write_text("{}")
    with pytest.raises(StaleEngineError, match="expected an engine's description"):
        read_description(path, sha256(b"engine").hexdigest())
    sidecar_path(path).unlink()
    assert read_description(path, sha256(b"engine").hexdigest()) is None


@pytest.mark.parametrize(
    ("tensorrt", "capability", "words"),
    [
        ("10.3.0", "9.0", "was built for TensorRT 8.6.0, this is 10.3.0; build it again here"),
        ("8.6.0", "7.5", "was built for compute capability 9.0, this is 7.5; build it again here"),
    ],
)
def test_an_engine_of_another_release_or_gpu_is_refused_before_tensorrt_sees_it(tmp_path, tensorrt, capability, words):
    check_origin(tmp_path, WANTED, "8.6.0", "9.0")
    with pytest.raises(BuildError, match=words):
        check_origin(tmp_path, WANTED, tensorrt, capability)


def test_the_reason_survives_a_copy_of_the_error():
    again = pickle.loads(pickle.dumps(StaleEngineError("a.engine: stale")))
    assert (str(again), again.reason) == ("a.engine: stale; rebuild", "a.engine: stale")
