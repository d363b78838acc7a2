"""Maps of classes as outputs hold them, each against NumPy and Pillow."""

import numpy as np
import pytest
from PIL import Image

from quant.errors import QuantError
from quant.evaluation.outputs import OutputLayout
from quant.tasks.segmentation.finding import MapEvidence, map_head_from_outputs

SIZE = (32, 48)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (2, 5, *SIZE)).astype(np.float32)
CLASSES = LOGITS.argmax(axis=1)


def head_of(*outputs, names=None, axis=0, **known):
    names = names or [f"out{i}" for i in range(len(outputs))]
    layouts = [OutputLayout(name, axis) for name in names]
    return map_head_from_outputs(MapEvidence(layouts, list(outputs), SIZE, **known))


def softmax(values):
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize(
    ("output", "kind", "expected"),
    [
        (LOGITS, "scores", CLASSES),
        (LOGITS.astype(np.float16), "scores", LOGITS.astype(np.float16).argmax(axis=1)),
        (softmax(LOGITS), "scores", CLASSES),
        (np.moveaxis(LOGITS, 1, 3), "scores", CLASSES),
        (CLASSES, "numbers", CLASSES),
        (CLASSES.astype(np.int32)[:, None], "numbers", CLASSES),
        (CLASSES.astype(np.uint8)[..., None], "numbers", CLASSES),
        (CLASSES.astype(np.float32), "numbers", CLASSES),
    ],
)
def test_scores_and_numbers(output, kind, expected):
    head = head_of(output)
    assert head.kind == kind
    np.testing.assert_array_equal(head.class_maps([output], SIZE), expected)


def test_one_channel_for_two_classes():
    logits = 4 * LOGITS[:, :1]
    head = head_of(sigmoid(logits), after_sigmoid=frozenset({"out0"}))
    assert (head.kind, head.classes) == ("probability", 2)
    np.testing.assert_array_equal(head.class_maps([sigmoid(logits)], SIZE), logits[:, 0] > 0)
    head = head_of(logits, certain=True)
    assert head.kind == "logit"
    np.testing.assert_array_equal(head.class_maps([logits], SIZE), logits[:, 0] > 0)


@pytest.mark.parametrize("step", [2, 4, 8])
def test_scores_of_a_coarse_grid_are_interpolated_before_the_class_is_taken(step):
    """Pillow's bilinear filter, which has the same places where it enlarges, is the oracle for the scores."""
    coarse = np.ascontiguousarray(LOGITS[..., : SIZE[0] // step, : SIZE[1] // step])
    enlarged = np.stack(
        [[np.asarray(Image.fromarray(p).resize(SIZE[::-1], Image.Resampling.BILINEAR)) for p in one] for one in coarse]
    )
    first, second = np.sort(enlarged, axis=1)[:, -1], np.sort(enlarged, axis=1)[:, -2]
    sure = first - second > 1e-4
    found = head_of(coarse).class_maps([coarse], SIZE)
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(found[sure], enlarged.argmax(axis=1)[sure])


def test_numbers_of_a_coarse_grid_are_repeated():
    coarse = CLASSES[:, ::4, ::4]
    expected = coarse.repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_array_equal(head_of(coarse).class_maps([coarse], SIZE), expected)


def test_images_need_not_come_first():
    turned = np.moveaxis(LOGITS, 0, 1)
    head = head_of(turned, axis=1)
    np.testing.assert_array_equal(head.class_maps([turned], SIZE), CLASSES)


def test_numbers_that_are_none_of_a_class():
    head = head_of(CLASSES.astype(np.float32))
    wrong = CLASSES.astype(np.float32)
    wrong[1, 2, 3] = np.nan
    with pytest.raises(QuantError, match=r"output 'out0': expected numbers of classes from 0 to 4095, found nan"):
        head.class_maps([wrong], SIZE)


def test_of_two_outputs_the_main_one_is_taken():
    auxiliary = -LOGITS
    assert head_of(auxiliary, LOGITS, names=["aux", "out"]).output == 1
    assert head_of(LOGITS[..., ::4, ::4], LOGITS).output == 1  # the finer one
    assert head_of(LOGITS, CLASSES).kind == "numbers"


@pytest.mark.parametrize(
    "outputs",
    [
        [LOGITS[:, :, 0, 0]],  # a vector
        [np.maximum(LOGITS, 0)],  # features behind a Relu
        [LOGITS[..., :20, :48]],  # no grid over the input
        [np.repeat(LOGITS, 60, axis=1)],  # 300 channels
        [LOGITS[:, :1]],  # a depth, or anything
        [sigmoid(LOGITS[:, :1])],
        [LOGITS, LOGITS[..., ::2, ::2], LOGITS[..., ::4, ::4]],  # levels of a backbone
    ],
)
def test_what_nobody_calls_a_segmentation_is_none(outputs):
    assert head_of(*outputs) is None


def test_who_says_so_is_believed():
    """A Relu before the output, or a very coarse grid, where masks say that it segments."""
    assert head_of(np.maximum(LOGITS, 0), certain=True).classes == 5
    assert head_of(LOGITS[..., ::16, ::16], certain=True).classes == 5
