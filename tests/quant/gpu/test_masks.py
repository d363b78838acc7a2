"""A mask in an implicit build: its tensor stays float, whatever scale a cache has for it."""

import numpy as np
import pytest
from onnx import helper

from calib.caches.cache import cache_from_amax
from calib.calibrator import MinMaxCalibrator
from quant import collect_statistics
from quant.tensorrt.bindings import load_tensorrt

pytestmark = pytest.mark.gpu
TOKENS, WIDTH = 16, 64


@pytest.mark.parametrize("lowest", [float(np.finfo(np.float32).min), -1e9, -1e4])
def test_a_scale_that_would_crush_the_scores_is_left_out(graph_of, saved, random, batch_of, run_onnx, backend, lowest):
    if not load_tensorrt().has_calibrators:
        pytest.skip(f"TensorRT {load_tensorrt().version} builds nothing from a cache alone")
    n = helper.make_node
    nodes = [
        n("MatMul", ["x", "wq"], ["q"]),
        n("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        n("MatMul", ["q", "t"], ["scores"]),
        n("Mul", ["scores", "factor"], ["scaled"]),
        n("Add", ["scaled", "mask"], ["masked"]),
        n("Softmax", ["masked"], ["seen"], axis=-1),
        n("MatMul", ["seen", "x"], ["mixed"]),
        n("MatMul", ["mixed", "wo"], ["y"]),
    ]
    constants = {
        "wq": random(WIDTH, WIDTH, seed=1) / np.float32(WIDTH**0.5),
        "wo": random(WIDTH, WIDTH, seed=2) / np.float32(WIDTH**0.5),
        "factor": np.float32(2 / WIDTH**0.5),
        "mask": np.triu(np.full((TOKENS, TOKENS), lowest, np.float32), 1),
    }
    shape = ["N", TOKENS, WIDTH]
    proto = graph_of(nodes, {"x": shape}, {"y": shape}, constants)
    x = random(8, TOKENS, WIDTH, seed=3)
    calibrator = MinMaxCalibrator([batch_of(x=x)])
    model = saved(proto)
    collect_statistics(model, calibrator)
    ours = calibrator.compute_cache()
    assert "masked" not in ours.scales
    theirs = cache_from_amax({**ours.amax, "masked": abs(lowest)}, calibrator.algorithm)
    (expected,) = run_onnx(proto, x=x)
    used = backend(8, strict_int8=True)
    for cache in (ours, theirs):
        (found,) = used.build(model, "int8", cache).runnable.run({"x": x})
        assert np.abs(found - expected).max() <= 0.15 * np.abs(expected).max()
    assert "1 scales of the cache are left out, 'masked' first" in " ".join(backend.notes)
