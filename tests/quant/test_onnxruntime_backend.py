import numpy as np
import pytest
from onnx import TensorProto, helper

from quant.errors import ModelError
from quant.onnxruntime_backend import OnnxRuntimeSession


def test_a_fixed_batch_is_filled_up_and_cut_again(elementwise, random):
    session = OnnxRuntimeSession(elementwise(batch=4))
    assert session.fixed_batch == 4
    for size in (1, 3, 4, 5, 9):
        x = random(size, 2, 3)
        (found,) = session.run({"x": x})
        np.testing.assert_array_equal(found, np.abs(x) * 2 + 1)


@pytest.mark.parametrize("x", [np.ones((2, 5), np.float32), np.ones((2, 4)), np.ones((2, 4, 1), np.float32)])
def test_an_input_that_does_not_fit_is_one_line(logarithm, x):
    with pytest.raises(ModelError, match="it: ONNX Runtime cannot run it: ") as caught:
        OnnxRuntimeSession(logarithm.proto, name="it").run({"x": x})
    assert "\n" not in str(caught.value)


def test_outputs_can_be_chosen(elementwise, random):
    proto = elementwise()
    proto.graph.output.append(helper.make_tensor_value_info("abs", TensorProto.FLOAT, None))
    x = random(2, 2, 3)
    (found,) = OnnxRuntimeSession(proto).run({"x": x}, ["abs"])
    np.testing.assert_array_equal(found, np.abs(x))
