import numpy as np
import pytest
from onnx import helper

from quant.qdq.writer import qdq_model_from_amax, quantizable_tensors
from quant.search.per_tensor import choose_by_tensor


@pytest.fixture
def net(residual_net, saved):
    return saved(residual_net)


@pytest.fixture
def batches(random):
    return [{"input": random(4, 3, 8, 8, seed=seed)} for seed in (1, 2)]


@pytest.fixture
def largest(net, batches, run_onnx):
    """Largest magnitude of each tensor in those batches."""
    tensors = quantizable_tensors(net.proto)
    inner = [tensor for tensor in tensors if tensor != "input"]
    found = [{**run_onnx(net.proto, also=inner, **batch), **batch} for batch in batches]
    return {tensor: float(max(np.abs(values[tensor]).max() for values in found)) for tensor in tensors}


def sqnr_db(net, amax, batches, run_onnx):
    """Of the outputs, with a model built for these scales."""
    built = qdq_model_from_amax(net.proto, amax)
    pairs = [(run_onnx(net.proto, **batch)[0], run_onnx(built, **batch)[0]) for batch in batches]
    signal = sum(np.square(a, dtype=np.float64).sum() for a, _ in pairs)
    return 10 * np.log10(signal / sum(np.square(a.astype(np.float64) - b).sum() for a, b in pairs))


def test_a_tensor_gets_the_algorithm_that_does_not_clip_it(net, batches, largest, run_onnx):
    """One candidate clips the input, the other one everything else."""
    first = {**largest, "input": largest["input"] * 0.3}
    second = {**{name: value * 0.05 for name, value in largest.items()}, "input": largest["input"]}
    steps = []
    choice = choose_by_tensor(net, {"second": second, "first": first}, "first", batches, batches, steps.append)
    assert choice.start == "first"
    assert choice.algorithms == {**dict.fromkeys(largest, "first"), "input": "second"}
    assert choice.amax == largest
    assert choice.sqnr_db > choice.start_sqnr_db + 3
    assert choice.start_sqnr_db == pytest.approx(sqnr_db(net, first, batches, run_onnx), abs=0.01)
    assert choice.sqnr_db == pytest.approx(sqnr_db(net, choice.amax, batches, run_onnx), abs=0.01)
    assert sum(steps) == len(largest)


def test_tensors_that_no_build_quantizes_keep_the_starting_algorithm(net, batches, largest):
    candidates = {"a": {**largest, "sum": 3.0}, "b": {**{n: v / 50 for n, v in largest.items()}, "sum": 7.0}}
    choice = choose_by_tensor(net, candidates, "a", batches, batches)
    assert choice.amax["sum"] == 3.0
    assert "sum" not in choice.algorithms


def test_trials_scale_moved_data_as_the_build_does(moving_shortcut, saved, random, run_onnx):
    """The shortcut slices and pads r1, so its pairs take r1's scale; trials with another one would judge in vain."""
    net = saved(moving_shortcut)
    batches = [{"x": random(4, 3, 8, 8, seed=seed)} for seed in (1, 2)]
    amax = {"x": 4.0, "r1": 20.0}
    choice = choose_by_tensor(net, {"only": amax}, "only", batches, batches)
    assert choice.sqnr_db == pytest.approx(sqnr_db(net, amax, batches, run_onnx), abs=0.01)


@pytest.fixture
def two_inputs(graph_of, saved):
    """Outputs 127 x and 127 z. The scales 1 and 2 make every error a whole number, times 127."""
    nodes = [helper.make_node("MatMul", [name, "w"], [f"{name}_out"], name=f"{name}_matmul") for name in "xz"]
    nodes.append(helper.make_node("Concat", ["x_out", "z_out"], ["y"], axis=1))
    shapes = {"x": ["N", 1], "z": ["N", 1]}
    return saved(graph_of(nodes, shapes, {"y": ["N", 2]}, {"w": np.full((1, 1), 127, np.float32)}))


def images(*values):
    """A batch of images with these values of x; z is 100."""
    x = np.array(values, np.float32)[:, None]
    return [{"x": x, "z": np.full_like(x, 100)}]


FINE, COARSE = 127.0, 254.0  # amax: steps of 1 up to 127; steps of 2, one off for odd values, up to 254


@pytest.fixture
def choice_of_x(two_inputs):
    """The choice for x between `start`, where all begins, and `other`; the other one loses z."""

    def choose(start, other, trial, confirming):
        candidates = {"other": {"x": other, "z": 127e4}, "start": {"x": start, "z": 127.0}}
        return choose_by_tensor(two_inputs, candidates, "start", trial, confirming)

    return choose


def test_what_all_images_gain_is_kept(choice_of_x):
    choice = choice_of_x(COARSE, FINE, images(1, 3, 5, 7), images(9, 11))
    assert choice.algorithms == {"x": "other", "z": "start"}
    assert choice.amax == {"x": FINE, "z": 127.0}
    assert choice.changed == 1
    assert choice.start_sqnr_db == pytest.approx(10 * np.log10((1 + 9 + 25 + 49 + 4 * 100**2) / 4))
    assert choice.confirmed_start_sqnr_db == pytest.approx(10 * np.log10((81 + 121 + 2 * 100**2) / 2))
    assert choice.sqnr_db == choice.confirmed_sqnr_db == np.inf


@pytest.mark.parametrize(
    "confirming",
    [
        images(9, 200),  # 200 needs no clipping with the coarse scale and loses 73 with the fine one
        images(2, 4),  # nothing lost, nothing gained
        [],
    ],
    ids=["they lose", "they gain nothing", "none"],
)
def test_what_other_images_do_not_confirm_is_not_kept(choice_of_x, confirming):
    choice = choice_of_x(COARSE, FINE, images(1, 3, 5, 7), confirming)
    assert choice.algorithms == {"x": "start", "z": "start"}
    assert choice.amax == {"x": COARSE, "z": 127.0}
    assert choice.changed == 0
    assert choice.sqnr_db == choice.start_sqnr_db
    assert choice.confirmed_sqnr_db == choice.confirmed_start_sqnr_db


def test_the_second_best_change_is_kept_where_the_best_is_not_confirmed(two_inputs):
    """On the trial images 3 and 3 the steps of 1 lose nothing, those of 2 lose 1, those of 8 lose 3."""
    amax = {"steps of 8": 8 * 127.0, "steps of 1": 127.0, "steps of 2": 2 * 127.0}
    candidates = {name: {"x": value, "z": 127.0} for name, value in amax.items()}
    choice = choose_by_tensor(two_inputs, candidates, "steps of 8", images(3, 3), images(3, 250))
    assert choice.algorithms["x"] == "steps of 2"


def test_the_gain_of_one_image_is_chance(choice_of_x):
    """150 gains 23 squared by the coarse scale, 15 odd values lose 1 each: mean 32.1, standard error 33.1."""
    odd = range(1, 31, 2)
    one, many = images(*odd, 150), images(*odd, *[150] * 15)
    assert choice_of_x(FINE, COARSE, many, many).changed == 1
    assert choice_of_x(FINE, COARSE, one, many).changed == 0
    assert choice_of_x(FINE, COARSE, many, one).changed == 0


@pytest.mark.parametrize("trial", [images(1), []], ids=["one", "none"])
def test_fewer_than_two_images_tell_nothing(choice_of_x, trial):
    assert choice_of_x(COARSE, FINE, trial, images(9, 11)).changed == 0


def test_a_model_with_a_fixed_batch_takes_ragged_batches(graph_of, saved):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    net = saved(graph_of(nodes, {"x": [2, 1]}, {"y": [2, 1]}, {"w": np.full((1, 1), 127, np.float32)}))
    batches = [{"x": np.array([[1], [4], [7]], np.float32)}]
    choice = choose_by_tensor(net, {"coarse": {"x": COARSE}}, "coarse", batches, batches)
    assert choice.sqnr_db == pytest.approx(10 * np.log10((1 + 16 + 49) / 2))
