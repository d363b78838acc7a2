"""In which whole numbers a Q/DQ model computes: as TensorRT wants it, or as ONNX Runtime's own kernels do.

TensorRT takes INT8 with zero point 0 and biases as floats. ONNX Runtime's kernels for x86 multiply unsigned data by
signed weights, and add 32-bit biases. A tensor that is never negative gets all 256 values there. On processors without
VNNI, pairs of products are added in 16 bits: 2 * 255 * 127 does not fit, 2 * 255 * 64 does, so weights of 7 bits are
exact there.

Source: ONNX Runtime, "Quantize ONNX models", on data types, and on `reduce_range` for AVX2 and AVX-512 without VNNI.
"""

from __future__ import annotations

from dataclasses import dataclass

from quant.onnx_graph.editor import GraphEditor
from quant.qdq.operators import POOLING_OPS, only_moves
from quant.qdq.weights import LIMIT

_NOT_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Sqrt", "Softplus", "Shape", "Size"}
_KEEPS_SIGN = {"Add", "Sum", "Mul", "Concat", "Max", "Min"}
REDUCED_LIMIT = 63  # 7 bits, symmetric


@dataclass(frozen=True)
class NumberForm:
    """The whole numbers of a Q/DQ model.

    Attributes:
        unsigned: Activations are UINT8: around 128, or from 0 where they are never negative.
        integer_bias: Biases of convolutions are INT32, in steps of the data's scale times the weights'.
        weight_limit: Largest magnitude of weights: 127, or 63 where products are added in 16 bits.
    """

    unsigned: bool = False
    integer_bias: bool = False
    weight_limit: int = LIMIT


FOR_TENSORRT = NumberForm()


def for_onnxruntime(*, reduce_range: bool) -> NumberForm:
    """What ONNX Runtime's own integer kernels take.

    Args:
        reduce_range: Weights of 7 bits, for x86 processors without VNNI.
    """
    return NumberForm(unsigned=True, integer_bias=True, weight_limit=REDUCED_LIMIT if reduce_range else LIMIT)


def never_negative(editor: GraphEditor) -> set[str]:
    """Tensors that hold no negative value, whatever the image is, as far as the graph tells."""
    found = {name for name, value in editor.constants.items() if value.dtype.kind in "fiu" and not (value < 0).any()}
    for node in editor.nodes:
        read = [name for name in node.input if name]
        if node.op_type in _NOT_NEGATIVE:
            holds = True
        elif node.op_type == "Clip":
            least = editor.constants.get(node.input[1]) if len(node.input) > 1 and node.input[1] else None
            holds = node.input[0] in found or (least is not None and bool((least >= 0).all()))
        elif only_moves(node, editor) or node.op_type in ("Split", *POOLING_OPS):
            holds = node.input[0] in found
        elif node.op_type == "Resize":
            mode = next((a.s for a in node.attribute if a.name == "mode"), b"nearest")
            holds = node.input[0] in found and bool(mode != b"cubic")  # which goes below what it interpolates
        else:
            holds = node.op_type in _KEEPS_SIGN and all(name in found for name in read)
        if holds:
            found.update(node.output)
    return found - editor.constants.keys()
