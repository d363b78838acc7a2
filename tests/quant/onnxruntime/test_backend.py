import numpy as np
import pytest

from calib.calibrator import MinMaxCalibrator
from quant.errors import BuildError
from quant.onnxruntime.backend import OnnxRuntimeBackend


def test_a_model_is_run_as_it_is(residual_net, saved, run_onnx, random):
    model = saved(residual_net)
    build = OnnxRuntimeBackend().load(model, "fp32")
    x = random(2, 3, 8, 8)
    np.testing.assert_allclose(build.runnable.run({"input": x})[0], run_onnx(model.proto, input=x)[0], rtol=1e-4)
    assert (build.precision, build.bytes, build.suffix) == ("fp32", model.proto.ByteSize(), ".onnx")


def test_onnx_runtime_has_no_calibration_of_its_own(residual_net, saved):
    with pytest.raises(BuildError, match="use --calibrator toolkit"):
        OnnxRuntimeBackend().calibrate(saved(residual_net), MinMaxCalibrator(), print)


def test_int8_without_scales_is_refused(residual_net, saved):
    with pytest.raises(BuildError, match="int8: expected scales, found none"):
        OnnxRuntimeBackend().build(saved(residual_net), "int8")
