import math
import re
from pathlib import Path

import numpy as np
import pytest

from quant.errors import QuantError, SettingsError
from quant.settings.run_settings import RunSettings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algo": "kl"}, "algo: expected one of auto, entropy, minmax, percentile, mse, found 'kl'"),
        ({"sampling": "last"}, "sampling: expected one of random, first, found 'last'"),
        ({"backend": "cuda"}, "backend: expected one of auto, "),
        ({"precision": "int4"}, "precision: expected one of int8, fp16, fp32, found 'int4'"),
        ({"num_images": 0}, "num_images: expected at least 1, found 0"),
        ({"batch_size": -1}, "batch_size: expected at least 1, found -1"),
        ({"percentile": 0.0}, "percentile: expected a number above 0 and up to 100"),
        ({"percentile": math.nan}, "percentile: expected a number above 0 and up to 100"),
        ({"max_bad": 1.1}, "max_bad: expected a share from 0 to 1"),
        ({"max_bad": math.nan}, "max_bad: expected a share from 0 to 1"),
        ({"max_drop": math.nan}, "max_drop: expected percentage points from -1000 to 1000"),
        ({"max_drop": math.inf}, "max_drop: expected percentage points from -1000 to 1000"),
        ({"cache_only": True, "precision": "fp16"}, "cache_only: only INT8 uses a cache"),
    ],
)
def test_a_value_out_of_its_range_is_refused(options, message):
    with pytest.raises(QuantError, match=message):
        RunSettings(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrator": "tensorrt", "backend": "onnxruntime"}, "needs backend tensorrt, found onnxruntime"),
        ({"calibrator": "tensorrt", "algo": "mse"}, "TensorRT's own calibration does not support mse"),
        (
            {"calibrator": "tensorrt", "match_tensorrt": True},
            "TensorRT's own calibration does not support match_tensorrt",
        ),
        ({"dynamic": "1:8"}, "expected MIN:OPT:MAX, for instance 1:8:64, found '1:8'"),
        ({"dynamic": "8:1:64"}, "expected 1 <= MIN <= OPT <= MAX, found 8:1:64"),
        ({"workspace": -1}, "workspace: expected MiB, at least 0, found -1"),
        ({"builder_level": 6}, "builder_level: expected 0 to 5, found 6"),
        ({"dla": -1}, "dla: expected the number of a DLA core, found -1"),
    ],
)
def test_what_tensorrt_cannot_build_is_refused_before_anything_is_done(options, message):
    with pytest.raises(QuantError, match=re.escape(message)):
        RunSettings(**options)


@pytest.mark.parametrize("name", ["model.fp32.engine", "model.int8.engine", "timing.cache"])
def test_a_model_or_cache_in_the_place_of_an_engine_s_files_is_refused(name):
    with pytest.raises(QuantError, match="would overwrite a report or model"):
        RunSettings(out=Path("out"), cache=Path("out") / name)
    with pytest.raises(QuantError, match="would be overwritten"):
        RunSettings(out=Path("out"), model=Path("out") / name)


def test_python_code_may_give_texts_for_paths_paths_for_texts_and_numpy_s_numbers():
    given = RunSettings(
        model="model.onnx", data="imgs", out="out", preprocess=Path("p.toml"), batch_size=np.int64(8),
        max_drop=np.float32(0.5), percentile=99, input=["a=1"],
    )  # fmt: skip
    wanted = RunSettings(
        model=Path("model.onnx"), data=Path("imgs"), out=Path("out"), preprocess="p.toml", batch_size=8, max_drop=0.5,
        percentile=99.0, input=("a=1",),
    )  # fmt: skip
    assert given == wanted
    assert [type(getattr(given, name)) for name in ("batch_size", "max_drop", "preprocess")] == [int, float, str]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("batch_size", "8", "a whole number, found '8'"),
        ("batch_size", True, "a whole number, found True"),
        ("max_drop", "1", "a number, found '1'"),
        ("model", 3, "a path in quotes, found 3"),
        ("trust_cache", 1, "true or false, found 1"),
        ("input", "a=1", "a list of texts in quotes, found 'a=1'"),
        ("algo", None, "a text in quotes, found None"),
    ],
)
def test_values_of_another_type_are_refused_from_python_too(name, value, expected):
    with pytest.raises(SettingsError) as caught:
        RunSettings(**{name: value})
    assert str(caught.value) == f"{name}: expected {expected}"
