"""NaN and infinity are errors in tensors that need a scale, and in no others."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from calib.algorithms import Entropy
from calib.calibrator import EntropyCalibrator, MinMaxCalibrator
from calib.errors import NonFiniteError
from calib.histograms.histogram import Histogram
from quant import collect_statistics
from quant.qdq.writer import quantizable_tensors
from tests.int8_oracle import amax_of, run_exactly

n = helper.make_node
MASK = np.triu(np.full((4, 4), -np.inf, np.float32), 1)  # what comes later is not seen


@pytest.fixture
def attention(graph_of):
    """softmax(x x' + mask) x, with a mask of what comes later."""

    def make(mask):
        nodes = [
            n("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            n("MatMul", ["x", "t"], ["scores"]),
            n("Add", ["scores", "mask"], ["masked"]),
            n("Softmax", ["masked"], ["seen"], axis=-1),
            n("MatMul", ["seen", "x"], ["y"]),
        ]
        return graph_of(nodes, {"x": ["N", 4, 6]}, {"y": ["N", 4, 6]}, {"mask": mask})

    return make


@pytest.fixture
def anchors(graph_of, random):
    """Anchors that are infinite where they are not valid, then a Sigmoid; forbidden classes in the output."""
    nodes = [
        n("Greater", ["x", "zero"], ["valid"]),
        n("Where", ["valid", "x", "inf"], ["anchors"]),
        n("Sigmoid", ["anchors"], ["boxes"]),
        n("MatMul", ["boxes", "w"], ["logits"]),
        n("Where", ["allowed", "logits", "minus"], ["y"]),
        n("Log", ["x"], ["log"]),  # NaN, of no use to anything that is quantized
        n("IsNaN", ["log"], ["z"]),
    ]
    constants = {"zero": np.float32(0), "inf": np.float32(np.inf), "minus": np.float32(-np.inf), "w": random(6, 3)}
    constants["allowed"] = np.array([True, False, True])
    kinds = {"z": TensorProto.BOOL}
    return graph_of(nodes, {"x": ["N", 6]}, {"y": ["N", 3], "z": ["N", 6]}, constants, kinds=kinds)


def collected(model, batch, calibrator=MinMaxCalibrator, **options):
    made = calibrator([batch], **options)
    collect_statistics(model, made)
    return made


@pytest.mark.parametrize("options", [(MinMaxCalibrator, {}), (EntropyCalibrator, {"match_tensorrt": True})])
def test_infinite_masks_and_anchors_are_left_out_and_named(saved, attention, anchors, batch_of, random, options):
    calibrator, arguments = options
    for proto, x, gone in (
        (attention(MASK), random(8, 4, 6), {"masked"}),
        (anchors, random(8, 6), {"anchors", "y", "log"}),
    ):
        found = collected(saved(proto), batch_of(x=x), calibrator, **arguments)
        assert set(found.statistics.left_out) == gone
        assert not gone & found.compute_cache().scales.keys()
        assert set(quantizable_tensors(proto)) <= found.compute_cache().scales.keys()


def test_the_scales_of_what_is_quantized_are_those_of_its_values(saved, anchors, batch_of, random):
    x = random(8, 6)
    statistics = collected(saved(anchors), batch_of(x=x)).statistics
    for name, amax in amax_of(anchors, {"x": x}).items():
        assert statistics.histograms[name].abs_max == pytest.approx(amax)


@pytest.mark.parametrize("first", [True, False])
def test_an_infinity_in_any_batch_leaves_its_tensor_out(saved, anchors, batch_of, first):
    """Only one batch holds values that are not valid."""
    good, bad = np.ones((4, 6), np.float32), -np.ones((4, 6), np.float32)
    batches = [batch_of(x=bad), batch_of(x=good, first=4)] if first else [batch_of(x=good), batch_of(x=bad, first=4)]
    calibrator = MinMaxCalibrator(batches)
    collect_statistics(saved(anchors), calibrator)
    assert {"anchors", "log"} <= set(calibrator.statistics.left_out)
    assert calibrator.statistics.histograms["boxes"].abs_max == 1  # the Sigmoid of infinity


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("first", [True, False])
def test_infinity_that_a_relu_or_a_clip_removes_leaves_what_is_quantized(
    saved, graph_of, batch_of, random, clip, first
):
    """The product reads the clipped values, whose histogram follows from that of the values with infinity."""
    last = n("Clip", ["masked", "zero", "six"], ["r"]) if clip else n("Relu", ["masked"], ["r"])
    nodes = [n("Add", ["x", "mask"], ["masked"]), last, n("MatMul", ["r", "w"], ["y"])]
    constants = {"w": random(6, 3), "zero": np.float32(0), "six": np.float32(1)}
    inputs = {"x": ["N", 6], "mask": ["N", 6]}
    proto = graph_of(nodes, inputs, {"y": ["N", 3]}, constants)
    x, plain = random(4000, 6), np.zeros((4000, 6), np.float32)
    infinite = np.where(random(4000, 6, seed=5) > 0.5, -np.inf, np.inf if clip else 0).astype(np.float32)
    infinite[:3000] = 0  # so that whole chunks are counted before the first infinity
    batches = [batch_of(x=x, mask=mask) for mask in ((infinite, plain) if first else (plain, infinite))]
    calibrator = MinMaxCalibrator(batches)
    collect_statistics(saved(proto), calibrator)
    assert "masked" in calibrator.statistics.left_out
    expected = Histogram()
    for mask in (plain, infinite):
        expected.add(np.clip(x + mask, 0, 1 if clip else np.inf))
    assert calibrator.statistics.histograms["r"].digest() == expected.digest()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_a_relu_leaves_of_it_is_an_error(saved, graph_of, batch_of, random, value):
    nodes = [n("Relu", ["x2"], ["r"]), n("MatMul", ["r", "w"], ["y"])]
    proto = graph_of([n("Add", ["x", "x"], ["x2"]), *nodes], {"x": ["N", 6]}, {"y": ["N", 3]}, {"w": random(6, 3)})
    x = random(8, 6)
    x[1, 0], x[5, 2] = -np.inf, value
    with pytest.raises(NonFiniteError, match=r"tensor 'x2', image '5\.png'"):
        collected(saved(proto), batch_of(x=x))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_in_what_is_quantized_it_is_an_error_that_names_tensor_and_image(
    saved, anchors, attention, batch_of, random, value
):
    x = random(8, 4, 6)
    x[5, 2, 3] = value
    with pytest.raises(NonFiniteError, match=r"tensor 'x', image '5.png': expected finite activations"):
        collected(saved(attention(MASK)), batch_of(x=x))


def test_what_is_only_moved_into_a_product_must_be_finite_too(saved, graph_of, batch_of, random):
    """The scale of `moved` is that of `log`, from which its data comes."""
    nodes = [n("Log", ["x"], ["log"]), n("Reshape", ["log", "to"], ["moved"]), n("MatMul", ["moved", "w"], ["y"])]
    proto = graph_of(nodes, {"x": ["N", 2, 2]}, {"y": ["N", 3]}, {"to": np.array([-1, 4]), "w": random(4, 3)})
    with pytest.raises(NonFiniteError, match=r"tensor 'log', image '1\.png'"):
        collected(saved(proto), batch_of(x=np.array([1, 1, 1, 1, 0, 1, 1, 1], np.float32).reshape(2, 2, 2)))


@pytest.mark.parametrize("match", [False, True])
@pytest.mark.parametrize("lowest", [np.finfo(np.float32).min, -1e38, -1e9, -1e4])
def test_a_mask_of_the_lowest_numbers_gets_no_scale(saved, attention, batch_of, random, match, lowest):
    mask = np.triu(np.full((4, 4), lowest, np.float32), 1)
    proto, x = attention(mask), random(8, 4, 6)
    assert np.abs(run_exactly(proto, {"x": x}, also=["masked"])["masked"]).max() > 0.9 * abs(lowest)
    found = collected(saved(proto), batch_of(x=x), EntropyCalibrator, match_tensorrt=match)
    assert isinstance(found.algorithm, Entropy)
    assert "masked" in found.statistics.left_out
    assert max(found.compute_cache().scales.values()) < 1


def test_a_large_activation_that_is_quantized_keeps_its_scale(saved, graph_of, batch_of, random):
    proto = graph_of(
        [n("Mul", ["x", "big"], ["large"]), n("MatMul", ["large", "w"], ["y"])],
        {"x": ["N", 4]},
        {"y": ["N", 2]},
        {"big": np.float32(1e31), "w": random(4, 2)},
    )
    x = np.ones((2, 4), np.float32)
    statistics = collected(saved(proto), batch_of(x=x)).statistics
    assert statistics.histograms["large"].abs_max == np.float32(1e31)


def test_an_image_at_a_time_is_counted_where_the_graph_takes_no_more(saved, graph_of, batch_of, random):
    """Any batch is declared, and a shape inside is that of one image."""
    nodes = [n("Reshape", ["x", "to"], ["r"]), n("Relu", ["r"], ["p"]), n("MatMul", ["p", "w"], ["y"])]
    proto = graph_of(nodes, {"x": ["N", 2, 3]}, {"y": ["N", 2]}, {"to": np.array([1, 6]), "w": random(6, 2)})
    x = random(20, 2, 3, seed=1)
    statistics = collected(saved(proto), batch_of(x=x)).statistics
    y = np.maximum(x.reshape(20, 6), 0) @ random(6, 2)
    assert (statistics.images, statistics.histograms["y"].count) == (20, 40)
    assert statistics.histograms["y"].abs_max == pytest.approx(np.abs(y).max(), rel=1e-5)
    assert statistics.histograms["p"].max == x.max()
