import weakref

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from calib import Histogram, MinMaxCalibrator, NonFiniteError
from quant import collect_statistics
from quant.collectors.onnxruntime_collector import Spread
from quant.collectors.part_runner import PartRunner
from quant.collectors.plan import collection_plan
from quant.errors import BuildError, ModelError
from quant.onnxruntime import resident
from quant.onnxruntime.session import OnnxRuntimeSession


@pytest.fixture
def statistics_of():
    """What a calibrator collected of a model from some batches, and the numbers of images told to `advance`."""

    def collect(model, *batches, **options):
        calibrator, advanced = MinMaxCalibrator(batches), []
        collect_statistics(model, calibrator, advanced.append, **options)
        return calibrator.statistics, advanced

    return collect


def assert_counted(statistics, expected):
    """The statistics hold exactly these tensors and exactly these values, in any order."""
    assert set(statistics.histograms) == set(expected)
    for name, values in expected.items():
        histogram = Histogram()
        histogram.add(values)
        found = statistics.histograms[name]
        np.testing.assert_array_equal(found.signed_counts, histogram.signed_counts, err_msg=name)
        assert (found.min, found.max, found.zeros) == (histogram.min, histogram.max, histogram.zeros), name


def elementwise_values(x):
    return {"x": x, "abs": np.abs(x), "double": np.abs(x) * 2, "y": np.abs(x) * 2 + 1}


def test_activations_are_those_of_a_plain_session(saved, residual_net, statistics_of, batch_of, run_onnx, random):
    model = saved(residual_net)
    x = random(9, 3, 8, 8)
    names = [name for node in residual_net.graph.node for name in node.output]
    expected = run_onnx(residual_net, also=[name for name in names if name != "logits"], input=x) | {"input": x}
    statistics, advanced = statistics_of(model, batch_of(input=x[:6]), batch_of(input=x[6:], first=6))
    assert statistics.images == sum(advanced) == 9
    assert set(statistics.histograms) == set(expected)
    for name, values in expected.items():
        histogram = statistics.histograms[name]
        assert histogram.count == values.size, name
        # The plain session runs without optimisations, which may change the last digits.
        assert histogram.min == pytest.approx(values.min(), rel=1e-4, abs=1e-5), name
        assert histogram.max == pytest.approx(values.max(), rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("spread", [Spread(1, 1, 1), Spread(2, 3, 2), Spread(7, 1, 1), Spread(3, 1, 2, 100)])
def test_the_statistics_do_not_depend_on_how_a_pass_is_spread(saved, residual_net, batch_of, random, spread):
    model, x = saved(residual_net), random(23, 3, 8, 8)
    found = []
    for given in (None, spread):
        calibrator = MinMaxCalibrator([batch_of(input=x[:16]), batch_of(input=x[16:], first=16)])
        collect_statistics(model, calibrator, spread=given)
        found.append({name: h.digest() for name, h in calibrator.statistics.histograms.items()})
    assert found[0] == found[1]


@pytest.mark.parametrize(("images", "at_work", "groups"), [(9.5, 8, 1), (3.5, 3, 1), (1.5, 1, 1), (0.5, 1, 3)])
def test_fewer_parts_run_at_a_time_where_memory_holds_fewer_images(
    saved, elementwise, batch_of, random, images, at_work, groups
):
    model, batch = saved(elementwise()), batch_of(x=random(4, 2, 3))
    plan = collection_plan(model, MinMaxCalibrator().algorithm, lambda names: {})
    runner = PartRunner(model, threads=1, at_work=8)
    runner.open(plan.fetched)
    runner.divide(plan, batch, 4, int(images * 4 * 6 * len(plan.fetched)))
    assert (runner.at_work, len(runner.groups)) == (at_work, groups)
    calibrator = MinMaxCalibrator([batch, batch])
    held = int(images * 4 * 6 * len(plan.fetched)) * 4  # of which counts leave a quarter
    collect_statistics(model, calibrator, spread=Spread(8, 1, 1), memory_limit=held)
    assert_counted(calibrator.statistics, elementwise_values(np.concatenate([batch.inputs["x"]] * 2)))


def test_every_value_is_counted_once(saved, elementwise, statistics_of, batch_of, random):
    x = random(7, 2, 3)
    statistics, _ = statistics_of(saved(elementwise()), batch_of(x=x[:4]), batch_of(x=x[4:], first=4))
    assert_counted(statistics, elementwise_values(x))


@pytest.mark.parametrize("held", [1, 100, 200, 1000])
def test_running_a_batch_in_parts_and_groups_gives_the_same(saved, elementwise, statistics_of, batch_of, random, held):
    x = random(11, 2, 3)
    # An image has 72 bytes of activations: below 144 not even one is held twice at a time.
    statistics, advanced = statistics_of(saved(elementwise()), batch_of(x=x), memory_limit=held)
    assert len(advanced) > 1
    assert sum(advanced) == statistics.images == 11
    assert_counted(statistics, elementwise_values(x))


def test_groups_of_a_large_model_are_open_one_at_a_time(
    saved, elementwise, statistics_of, batch_of, random, monkeypatch
):
    monkeypatch.setattr(resident, "ROOM", -1)  # nothing fits together
    opened, alive = [], weakref.WeakSet()
    original = PartRunner._session

    def noted(self, tensors, **options):
        session = original(self, tensors, **options)
        opened.append((tuple(tensors), sum(group.session is not None for group in self.groups)))
        alive.add(session)
        return session

    monkeypatch.setattr(PartRunner, "_session", noted)
    x = random(8, 2, 3)
    statistics, _ = statistics_of(saved(elementwise()), batch_of(x=x[:4]), batch_of(x=x[4:], first=4), memory_limit=1)
    assert_counted(statistics, elementwise_values(x))
    groups = {tensors for tensors, _ in opened}
    assert len(groups) > 1
    assert {others for _, others in opened} == {0}
    # All at once for the sizes, then each group for each batch; twice where two parts of a batch take turns.
    assert 1 + 2 * (len(groups) - 1) <= len(opened) <= 1 + 4 * (len(groups) - 1)
    assert not alive


@pytest.mark.parametrize("sizes", [[4, 4], [4, 2], [3], [10], [1, 1, 1]])
def test_a_model_with_a_fixed_batch_counts_each_image_once(saved, elementwise, statistics_of, batch_of, random, sizes):
    x = random(sum(sizes), 2, 3)
    batches, first = [], 0
    for size in sizes:
        batches.append(batch_of(x=x[first : first + size], first=first))
        first += size
    statistics, advanced = statistics_of(saved(elementwise(batch=4)), *batches)
    assert statistics.images == sum(advanced) == len(x)
    assert_counted(statistics, elementwise_values(x))


def test_several_inputs_of_several_types(saved, graph_of, statistics_of, batch_of, random):
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Mul", ["image", "factor"], ["scaled"]),
        helper.make_node("Add", ["rows", "scaled"], ["y"]),
    ]
    table = random(5, 3)
    inputs = {"ids": ["N"], "image": ["N", 3], "factor": ["N", 1]}
    proto = graph_of(nodes, inputs, {"y": ["N", 3]}, {"table": table}, kinds={"ids": TensorProto.INT64})
    ids, image, factor = np.array([4, 0, 4]), random(3, 3, seed=1), random(3, 1, seed=2)
    statistics, _ = statistics_of(saved(proto), batch_of(ids=ids, image=image, factor=factor))
    assert_counted(
        statistics,
        {
            "image": image,
            "factor": factor,
            "rows": table[ids],
            "scaled": image * factor,
            "y": table[ids] + image * factor,
        },
    )


@pytest.mark.parametrize(("bad", "value"), [(-1.0, "nan"), (0.0, "-inf")])
@pytest.mark.parametrize("row", [0, 2, 6])
@pytest.mark.parametrize("held", [1, 200, 1 << 20])
def test_an_activation_that_is_not_finite_names_tensor_and_image(
    logarithm, statistics_of, batch_of, bad, value, row, held
):
    x = np.ones((8, 4), np.float32)
    x[row, 3] = bad
    with pytest.raises(
        NonFiniteError, match=rf"tensor 'log', image '{row + 20}\.png': expected finite activations, found {value};"
    ) as caught:
        statistics_of(logarithm, batch_of(x=np.ones((8, 4), np.float32)), batch_of(x=x, first=20), memory_limit=held)
    assert caught.value.tensor == "log"
    assert "\n" not in str(caught.value)


def test_an_input_that_is_not_finite_names_the_image(logarithm, statistics_of, batch_of):
    x = np.ones((3, 4), np.float32)
    x[1, 0] = np.inf
    with pytest.raises(NonFiniteError, match=r"tensor 'x', image '1\.png'"):
        statistics_of(logarithm, batch_of(x=x))


def test_a_constant_zero_tensor_has_a_positive_scale(saved, graph_of, batch_of, random):
    nodes = [helper.make_node("Sub", ["x", "x"], ["dead"]), helper.make_node("Add", ["dead", "x"], ["y"])]
    calibrator = MinMaxCalibrator([batch_of(x=random(3, 2))])
    collect_statistics(saved(graph_of(nodes, {"x": ["N", 2]}, {"y": ["N", 2]})), calibrator)
    assert calibrator.statistics.histograms["dead"].zeros == 6
    assert calibrator.compute_cache().scales["dead"] > 0


def test_an_unknown_operator_is_one_line(saved, graph_of, statistics_of, batch_of):
    proto = graph_of([helper.make_node("Frobnicate", ["x"], ["y"], domain="my.own")], {"x": ["N"]}, {"y": ["N"]})
    proto.opset_import.append(helper.make_opsetid("my.own", 1))
    with pytest.raises(BuildError, match="it: ONNX Runtime cannot load it: ") as caught:
        OnnxRuntimeSession(proto, name="it")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"model\.onnx: ONNX Runtime cannot load it: ") as caught:
        statistics_of(saved(proto), batch_of(x=np.ones(2, np.float32)))
    assert "\n" not in str(caught.value)


def test_the_model_is_not_edited(saved, elementwise, statistics_of, batch_of, random):
    model = saved(elementwise())
    before = model.proto.SerializeToString()
    statistics_of(model, batch_of(x=random(1, 2, 3)))
    assert model.proto.SerializeToString() == before


def test_constants_are_not_counted(saved, graph_of, statistics_of, batch_of, random):
    nodes = [
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Mul", ["x", "two"], ["y"]),
    ]
    x = random(2, 3)
    statistics, _ = statistics_of(saved(graph_of(nodes, {"x": ["N", 3]}, {"y": ["N", 3]})), batch_of(x=x))
    assert_counted(statistics, {"x": x, "y": x * 2})


def test_what_follows_from_another_tensor_is_what_counting_it_gives(saved, graph_of, statistics_of, batch_of, random):
    """Relu, Clip and reshaped tensors, also of each other, with one bound and with two for the same input."""
    nodes = [
        helper.make_node("Mul", ["x", "ten"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["relu"]),
        helper.make_node("Clip", ["wide", "zero", "six"], ["relu6"]),
        helper.make_node("Clip", ["wide", "zero", "one"], ["to_one"]),
        helper.make_node("Clip", ["wide", "minus", "six"], ["two_sided"]),
        helper.make_node("Clip", ["relu", "zero", "six"], ["twice"]),
        helper.make_node("Flatten", ["relu6"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["turned"]),
        helper.make_node("Relu", ["turned"], ["again"]),
        helper.make_node("Relu", ["to_one"], ["last"]),
        helper.make_node("Sum", ["two_sided", "twice", "last"], ["y"]),
    ]
    bounds = {"zero": 0.0, "six": 6.0, "one": 1.0, "minus": -2.0}
    constants = {"ten": [10.0], **{name: np.float32(value) for name, value in bounds.items()}}
    proto = graph_of(nodes, {"x": ["N", 3, 2]}, {"y": ["N", 3, 2], "again": [None, None]}, constants)
    x = random(50, 3, 2)
    x[0] = 0
    wide = x * np.float32(10)
    relu6, to_one = np.clip(wide, 0, 6), np.clip(wide, 0, 1)
    two_sided = np.clip(wide, -2, 6)
    statistics, _ = statistics_of(saved(proto), batch_of(x=x[:30]), batch_of(x=x[30:], first=30))
    expected = {"x": x, "wide": wide, "relu": np.maximum(wide, 0), "relu6": relu6, "to_one": to_one, "last": to_one}
    expected |= {"two_sided": two_sided, **dict.fromkeys(("twice", "flat", "turned", "again"), relu6)}
    assert_counted(statistics, expected | {"y": two_sided + relu6 + to_one})


def test_a_ragged_fixed_batch_counts_no_image_twice_where_the_batch_is_not_the_first_axis(
    saved, graph_of, statistics_of, batch_of, random
):
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0]),
        helper.make_node("Mul", ["turned", "two"], ["doubled"]),
        helper.make_node("Transpose", ["doubled"], ["y"], perm=[1, 0]),
    ]
    x = random(6, 3)
    statistics, _ = statistics_of(saved(graph_of(nodes, {"x": [4, 3]}, {"y": [4, 3]}, {"two": [2.0]})), batch_of(x=x))
    assert_counted(statistics, {"x": x, "turned": x, "doubled": x * 2, "y": x * 2})


def test_a_model_whose_activations_all_follow_from_its_input(saved, graph_of, statistics_of, batch_of, random):
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Flatten", ["r"], ["y"])]
    x = random(5, 2, 3)
    statistics, _ = statistics_of(
        saved(graph_of(nodes, {"x": ["N", 2, 3]}, {"y": ["N", 6]})), batch_of(x=x[:3]), batch_of(x=x[3:])
    )
    assert_counted(statistics, {"x": x, "r": np.maximum(x, 0), "y": np.maximum(x, 0)})
