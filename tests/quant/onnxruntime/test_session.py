import os
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from quant.errors import ModelError
from quant.onnxruntime.session import OnnxRuntimeSession


def test_a_fixed_batch_is_filled_up_and_cut_again(elementwise, random):
    session = OnnxRuntimeSession(elementwise(batch=4))
    assert session.fixed_batch == 4
    for size in (1, 3, 4, 5, 9):
        x = random(size, 2, 3)
        (found,) = session.run({"x": x})
        np.testing.assert_array_equal(found, np.abs(x) * 2 + 1)


def test_a_scalar_goes_with_every_part_of_a_fixed_batch(graph_of, random):
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    session = OnnxRuntimeSession(graph_of(nodes, {"x": [2, 3], "factor": []}, {"y": [2, 3]}, {}))
    x = random(5, 3)
    (found,) = session.run({"x": x, "factor": np.array(3, np.float32)})
    np.testing.assert_array_equal(found, x * 3)


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


def test_arrays_of_an_earlier_run_are_written_into_and_strided_inputs_live_as_long_as_the_run(elementwise, random):
    session = OnnxRuntimeSession(elementwise())
    outputs = {"y": np.zeros((4096, 2, 3), np.float32)}
    (array,) = outputs.values()
    for seed in range(5):
        x = random(3, 2, 2 * 4096, seed=seed).T[::2]  # its contiguous copy, 98 kB, is nobody's but the run's
        session.run_into({"x": x}, outputs)
        np.testing.assert_array_equal(array, np.abs(x) * 2 + 1)
    assert outputs["y"] is array


def test_arrays_that_an_output_does_not_fit_are_replaced(elementwise, random):
    session = OnnxRuntimeSession(elementwise())
    outputs = {"y": np.zeros((9, 2, 3), np.float32)}
    x = random(4, 2, 3)
    session.run_into({"x": x}, outputs)
    np.testing.assert_array_equal(outputs["y"], np.abs(x) * 2 + 1)
    assert not session.fixed_shapes


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no way to leave a process one processor")
def test_a_session_starts_no_threads_for_processors_that_the_process_may_not_use():
    text = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import onnx
from quant.onnxruntime.session import OnnxRuntimeSession
model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) {y = Relu(x)}')
first = OnnxRuntimeSession(model)  # with it, ONNX Runtime starts a thread for all sessions
before = len(os.listdir("/proc/self/task"))
sessions = [OnnxRuntimeSession(model) for _ in range(4)]
print(len(os.listdir("/proc/self/task")) - before)
"""
    told = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.strip() == "0"
