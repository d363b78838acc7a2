"""COCO's own evaluation is the oracle; the figures of a draw are those of a data set in which images are repeated."""

import contextlib
import io

import numpy as np
import pytest
from interval_coverage import coverage

from datasets.boxes.box_labels import ImageBoxes
from quant.evaluation.drop import drawn_weights, drop_from_draws
from quant.tasks.detection.boxes import Detections
from quant.tasks.detection.matching import matches, mean_precisions
from quant.tasks.detection.precision import bootstrapped, precision_of
from tests.detection_scenes import detected, scene

CLASSES = 5


def of_pycocotools(truth, found, classes=CLASSES):
    """Its twelve figures and its precisions [overlaps, recalls, classes, sizes]."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    annotations, results = [], []
    for i, each in enumerate(truth):
        for box, label, area, crowd in zip(each.boxes, each.classes, each.areas, each.crowd, strict=True):
            row = {"image_id": i, "category_id": int(label), "bbox": [*box[:2], *(box[2:] - box[:2])]}
            annotations.append({**row, "area": float(area), "iscrowd": int(crowd)})
    for i, each in enumerate(found):
        for box, label, score in zip(each.boxes, each.classes, each.scores, strict=True):
            row = {"image_id": i, "category_id": int(label), "bbox": [*box[:2], *(box[2:] - box[:2])]}
            results.append({**row, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        expected = coco.COCO()
        expected.dataset = {
            "images": [{"id": i, "width": 500, "height": 500} for i in range(len(truth))],
            "annotations": [{"id": k + 1, **each} for k, each in enumerate(annotations)],
            "categories": [{"id": i, "name": str(i)} for i in range(classes)],
        }
        expected.createIndex()
        evaluation = cocoeval.COCOeval(expected, expected.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, evaluation.eval["precision"][..., -1]


def world(seed, images=200, crowds=0.05, classes=CLASSES, **options):
    rng = np.random.default_rng(seed)
    truth = [scene(rng, classes, crowds) for _ in range(images)]
    return truth, [detected(rng, each, classes, **options) for each in truth]


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_pycocotools_on_200_images(seed):
    truth, found = world(seed)
    stats, grid = of_pycocotools(truth, found)
    figures = precision_of(truth, found, CLASSES)
    mine = [figures.map, figures.map50, figures.map75, *(figures.sizes[size] for size in ("small", "medium", "large"))]
    np.testing.assert_allclose(mine, 100 * stats[:6], rtol=0, atol=1e-6)
    assert [each.index for each in figures.classes] == list(range(CLASSES))
    np.testing.assert_allclose(
        [(each.ap, each.ap50) for each in figures.classes],
        [(100 * grid[:, :, k, 0].mean(), 100 * grid[0, :, k, 0].mean()) for k in range(CLASSES)],
        rtol=0,
        atol=1e-6,
    )
    np.testing.assert_allclose(figures.curve, 100 * grid[0, :, :, 0].mean(axis=1), rtol=0, atol=1e-6)
    by_match = mean_precisions(matches(truth, found, CLASSES), np.ones((1, len(truth)), np.int64))
    np.testing.assert_allclose(100 * by_match, 100 * stats[:1], rtol=0, atol=1e-6)


def test_a_draw_has_the_precision_of_its_images_each_as_often_as_drawn():
    truth, found = world(7, images=40, ties=False)
    weights = drawn_weights(40, 4, seed=1)
    drawn = mean_precisions(matches(truth, found, CLASSES), weights)
    for row, value in zip(weights, drawn, strict=True):
        repeated = np.repeat(np.arange(40), row)
        stats, _ = of_pycocotools([truth[i] for i in repeated], [found[i] for i in repeated])
        assert value == pytest.approx(stats[0], abs=1e-9)


def test_more_than_a_hundred_detections_of_a_class_and_classes_without_objects():
    truth, found = world(3, images=12, false=250, classes=2)
    stats, _ = of_pycocotools(truth, found, classes=4)
    assert precision_of(truth, found, 4).map == pytest.approx(100 * stats[0], abs=1e-6)
    by_match = mean_precisions(matches(truth, found, 4), np.ones((1, 12), np.int64))
    assert by_match[0] == pytest.approx(stats[0], abs=1e-9)


def nothing(images):
    empty = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    return [empty] * images


def test_no_detections_are_worth_nothing_and_no_objects_tell_nothing():
    truth, found = world(5, images=20)
    figures = precision_of(truth, nothing(20), CLASSES)
    assert (figures.map, figures.map50, figures.sizes["large"]) == (0, 0, 0)
    assert [each.ap for each in figures.classes] == [0] * CLASSES
    empty = [ImageBoxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0))] * 20
    assert np.isnan(precision_of(empty, found, CLASSES).map)
    assert np.isnan(mean_precisions(matches(empty, found, CLASSES), np.ones((1, 20), np.int64))).all()


def test_a_build_that_answers_the_same_loses_nothing_whatever_is_drawn():
    truth, found = world(2, images=50)
    same = matches(truth, found, CLASSES)
    drawn = bootstrapped(same, 50)
    drop = drop_from_draws(drawn, drawn)
    assert (drop.drop, drop.low, drop.high) == (0, 0, 0)
    assert drop.score == pytest.approx(precision_of(truth, found, CLASSES).map)


def test_a_worse_build_loses_what_the_two_figures_differ_by():
    rng = np.random.default_rng(4)
    truth, found = world(4, images=150)
    worse = [detected(rng, each, CLASSES, missed=0.4, jitter=0.09) for each in truth]
    drop = drop_from_draws(*(bootstrapped(matches(truth, each, CLASSES), 150, seed=3) for each in (found, worse)))
    before, after = (precision_of(truth, each, CLASSES).map for each in (found, worse))
    assert drop.drop == pytest.approx(before - after, abs=1e-6)
    assert 0 < drop.low < drop.drop < drop.high
    again = drop_from_draws(*(bootstrapped(matches(truth, each, CLASSES), 150, seed=3) for each in (found, worse)))
    assert drop == again


def test_the_interval_holds_the_true_drop_about_as_often_as_it_says():
    """Few draws, so the bounds are wide; scripts/interval_coverage.py makes 1,000."""
    drop, held = coverage("map", draws=60, images=120, resamples=150, size=2000, seed=3)
    assert drop > 0.5
    assert 53 <= held <= 60
