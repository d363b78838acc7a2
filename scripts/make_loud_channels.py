"""Make a net of the same function whose channels are hard to quantize: a tenth of those that are free get louder.

    python scripts/make_loud_channels.py model.onnx planted.onnx --size 32x32

docs/recovery.md has figures of such nets. Holds both models against each other in FP32 and prints the difference.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx

from quant.onnx_graph.model import load_model
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.qdq.preparation import prepared_for_quantization
from quant.recovery.channels.equalization import with_factors
from quant.recovery.channels.groups import channel_groups
from quant.recovery.inner_values import all_values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("planted", type=Path)
    parser.add_argument(
        "--size", default="224x224", help="height and width of the input, for models that leave it open"
    )
    parser.add_argument("--factor", type=float, default=64.0, help="a power of two keeps every bit of the outputs")
    parser.add_argument("--share", type=float, default=0.1, help="of the channels that are free")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model = load_model(options.model)
    (info,) = model.inputs
    sizes = dict(zip((2, 3), map(int, options.size.split("x")), strict=True))
    shape = [n if isinstance(n, int) else sizes.get(axis, 1) for axis, n in enumerate(info.shape)]
    image = {info.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    editor = prepared_for_quantization(model.proto)
    names = [name for node in editor.nodes for name in node.output if name]
    groups = channel_groups(editor, all_values(editor.model(), image, names))
    free = np.random.default_rng(options.seed).permutation(np.arange(1, groups.count))
    factors = np.ones(groups.count)
    factors[free[: int(options.share * groups.count)]] = 1 / options.factor
    planted = with_factors(editor, groups.constants, factors).model()
    onnx.save_model(planted, str(options.planted))
    before, after = (OnnxRuntimeSession(proto).run(image)[0] for proto in (model.proto, planted))
    loud = int((factors != 1).sum())
    print(f"{options.planted}: {loud} of {groups.count - 1} free channels are {options.factor:g} times louder;")
    print(f"largest difference of the outputs {np.abs(before - after).max():.2g}, of {np.abs(before).max():.2g}")


if __name__ == "__main__":
    main()
