"""What comes before quantization must not change the network; a step that does is named."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper

from quant.errors import BuildError, ModelError
from quant.evaluation.accuracy import reader_from_batch
from quant.evaluation.unchanged import check_preparation
from quant.jobs.measurement import check_model
from quant.onnx_graph import opset
from quant.onnx_graph.light_model import light_model
from quant.onnx_graph.model import OnnxModel
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.qdq import preparation

n = helper.make_node


@pytest.fixture
def checked(saved, batch_of):
    """Checks the preparation of a model on a batch."""

    def check(proto, **inputs):
        model = saved(proto)
        session = OnnxRuntimeSession(model.proto)
        reader = reader_from_batch(model.outputs, session, batch_of(**inputs))
        check_preparation(model, inputs, session.run(inputs), reader)
        return True

    return check


@pytest.fixture
def resizing(graph_of, random):
    """conv, linear Resize of opset 10, conv."""
    nodes = [
        n("Conv", ["x", "w"], ["c"]),
        n("Resize", ["c", "s"], ["u"], mode="linear"),
        n("Conv", ["u", "v"], ["y"]),
    ]
    constants = {"w": random(3, 3, 3, 3), "v": random(2, 3, 1, 1, seed=1), "s": np.array([1, 1, 2, 2], np.float32)}
    return graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 2, 12, 12]}, constants, opset=10)


def test_models_that_keep_their_values_pass(checked, residual_net, transformer, resizing, random):
    assert checked(residual_net, input=random(4, 3, 8, 8))
    assert checked(transformer, x=random(4, 16, 64))
    assert checked(resizing, x=random(4, 3, 8, 8))


def test_coordinates_that_a_conversion_changes_are_noticed(checked, resizing, random, monkeypatch):
    monkeypatch.setattr(opset, "_make_asymmetric", lambda *_: None)  # what ONNX's converter gives by itself
    with pytest.raises(
        BuildError, match=r"^the conversion from opset 10 to 13 changes what the model computes: .* agree"
    ):
        checked(resizing, x=random(4, 3, 8, 8))


@pytest.mark.parametrize("version", [9, 11, 12])
def test_hardmax_before_opset_13_is_refused_because_its_meaning_changed(checked, graph_of, random, version):
    """Until then it looked for one largest value over all axes from `axis` on."""
    nodes = [n("Conv", ["x", "w"], ["c"]), n("Hardmax", ["c"], ["h"], axis=1), n("Mul", ["c", "h"], ["y"])]
    proto = graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 4, 6, 6]}, {"w": random(4, 3, 3, 3)}, opset=version)
    with pytest.raises(BuildError, match=rf"the conversion from opset {version} to 13 changes .*opset 17"):
        checked(proto, x=random(4, 3, 8, 8))


@pytest.mark.parametrize(
    ("step", "name"),
    [("the folding of BatchNormalization", "fold_batch_norm"), ("the rewriting of Gemm", "_rewrite_gemm")],
)
def test_the_step_that_changes_the_network_is_named(checked, residual_net, random, monkeypatch, step, name):
    def spoil(editor):
        """The step, and then the weights of all convolutions are 1 % larger."""
        getattr(preparation, name)(editor)
        for node in editor.nodes:
            if node.op_type == "Conv":
                editor.constants[node.input[1]] = editor.constants[node.input[1]] * np.float32(1.01)

    steps = tuple((told, spoil if told == step else function) for told, function in preparation._STEPS)
    monkeypatch.setattr(preparation, "_STEPS", steps)
    with pytest.raises(BuildError, match=rf"^{step} changes what the model computes: .* agree to [34]\d\.\d dB"):
        checked(residual_net, input=random(4, 3, 8, 8))


def test_a_folded_constant_that_differs_is_named(checked, graph_of, random, monkeypatch):
    from quant.onnx_graph import constant_folding

    run = constant_folding._run
    monkeypatch.setattr(
        constant_folding, "_run", lambda *given: {name: value * 2 for name, value in run(*given).items()}
    )
    nodes = [n("LpNormalization", ["w"], ["m"], p=1), n("MatMul", ["x", "m"], ["y"])]
    proto = graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": random(4, 3)})
    with pytest.raises(BuildError, match=r"^the folding of constants changes .* agree to 0\.0 dB"):
        checked(proto, x=random(8, 4, seed=1))


def test_infinities_on_both_sides_agree_and_on_one_side_do_not(checked, graph_of, random, monkeypatch):
    nodes = [n("MatMul", ["x", "w"], ["p"]), n("Where", ["allowed", "p", "minus"], ["y"])]
    constants = {"w": random(4, 3), "allowed": np.array([True, False, True]), "minus": np.float32(-np.inf)}
    proto = graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, constants)
    checked(proto, x=random(8, 4, seed=1))

    def spoil(editor):
        editor.constants["minus"] = np.float32(-1)

    monkeypatch.setattr(preparation, "_STEPS", (("the spoiling", spoil),))
    with pytest.raises(BuildError, match=r"^the spoiling changes .* do not agree at all"):
        checked(proto, x=random(8, 4, seed=1))


def test_a_model_whose_classes_are_numbers_is_checked_too(checked, graph_of, random, monkeypatch):
    """Its only output is the number of the class: rounding may turn one, a changed network turns many."""
    nodes = [
        n("Conv", ["x", "w"], ["c"]),
        n("Resize", ["c", "s"], ["u"], mode="linear"),
        n("ArgMax", ["u"], ["y"], axis=1, keepdims=0),
    ]
    constants = {"w": random(4, 3, 3, 3), "s": np.array([1, 1, 2, 2], np.float32)}
    kinds = {"y": 7}
    proto = graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 12, 12]}, constants, opset=10, kinds=kinds)
    checked(proto, x=random(4, 3, 8, 8))
    monkeypatch.setattr(opset, "_make_asymmetric", lambda *_: None)
    with pytest.raises(BuildError, match="the conversion from opset 10 to 13 changes"):
        checked(proto, x=random(4, 3, 8, 8))


@pytest.mark.parametrize(("ranks", "swapped", "refused"), [(True, 2, False), (True, 20, True), (False, 2, True)])
def test_few_values_of_a_ranking_may_change_places(saved, batch_of, graph_of, random, ranks, swapped, refused):
    """Near ties of a TopK: rounding decides which comes first. Of 400 rows 2 change places, or 20."""
    nodes = [n("MatMul", ["x", "w"], ["p"]), n("TopK", ["p", "k"], ["y", "i"]) if ranks else n("Relu", ["p"], ["y"])]
    constants = {"w": random(4, 3), "k": np.array([3], np.int64)}
    model = saved(graph_of(nodes, {"x": ["N", 100, 4]}, {"y": ["N", 100, 3]}, constants))
    inputs = {"x": random(4, 100, 4, seed=1)}
    session = OnnxRuntimeSession(model.proto)
    (expected,) = session.run(inputs)
    expected[0, :swapped] = expected[0, :swapped][::-1].copy()
    reader = reader_from_batch(model.outputs, session, batch_of(**inputs))
    if refused:
        with pytest.raises(BuildError, match="changes what the model computes"):
            check_preparation(model, inputs, [expected], reader)
    else:
        check_preparation(model, inputs, [expected], reader)


def test_a_single_number_must_agree(saved, batch_of, graph_of, random):
    model = saved(graph_of([n("MatMul", ["x", "w"], ["y"])], {"x": [1, 4]}, {"y": [1, 1]}, {"w": random(4, 1)}))
    inputs = {"x": random(1, 4, seed=1)}
    session = OnnxRuntimeSession(model.proto)
    (expected,) = session.run(inputs)
    reader = reader_from_batch(model.outputs, session, batch_of(**inputs))
    check_preparation(model, inputs, [expected], reader)
    with pytest.raises(BuildError):
        check_preparation(model, inputs, [expected * np.float32(1.1)], reader)


class _Rounded:
    """A back end whose FP32 keeps 10 bits of each factor, as TensorRT's does with TF32."""

    def __init__(self, model):
        self._session = OnnxRuntimeSession(model.proto)

    def run(self, inputs):
        return self._session.run({name: _tf32(values) for name, values in inputs.items()})


def _tf32(values):
    return (values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def test_a_gpu_s_rounding_is_not_put_down_to_the_preparation(saved, batch_of, graph_of, random):
    """The outputs are small differences of large sums, so that 10 bits of each factor give 50 dB no more."""
    nodes = [n("Gemm", ["x", "w", "b"], ["y"])]
    weights = random(64, 4) + 3
    constants = {"w": weights, "b": -64 * weights.mean(axis=0)}
    model = saved(graph_of(nodes, {"x": ["N", 64]}, {"y": ["N", 4]}, constants, opset=11))
    inputs = {"x": 1 + random(16, 64, seed=1) / 10}
    session, on_gpu = OnnxRuntimeSession(model.proto), _Rounded(model)
    reader = reader_from_batch(model.outputs, session, batch_of(**inputs))
    with pytest.raises(BuildError, match="changes what the model computes"):
        check_preparation(model, inputs, on_gpu.run(inputs), reader)
    backend = SimpleNamespace(name="tensorrt")
    check_model(model, backend, lambda: on_gpu, batch_of(**inputs), reader)


def test_a_model_that_onnx_runtime_cannot_run_is_not_held_against_itself(saved, batch_of, graph_of, random, tmp_path):
    node = n("Plugin", ["x"], ["y"], domain="example")
    proto = graph_of([n("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": random(4, 3)})
    model = saved(proto)
    inputs = {"x": random(2, 4)}
    reader = reader_from_batch(model.outputs, OnnxRuntimeSession(model.proto), batch_of(**inputs))
    proto.graph.node[0].CopyFrom(node)
    proto.opset_import.append(onnx.helper.make_opsetid("example", 1))
    foreign = OnnxModel(tmp_path / "foreign.onnx", light_model(proto), "")
    with pytest.raises((BuildError, ModelError), match="Plugin"):
        OnnxRuntimeSession(foreign.light)
    assert check_preparation(foreign, inputs, None, reader) is None
    with pytest.raises(BuildError, match="do not agree at all"):  # where its outputs are known, they are asked for
        check_preparation(foreign, inputs, [np.zeros((2, 3), np.float32)], reader)
