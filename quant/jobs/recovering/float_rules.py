"""Which products of a run stay float because its user says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from quant.onnx_graph.model import OnnxModel
from quant.qdq.operators import node_key
from quant.qdq.placement import is_product
from quant.qdq.preparation import prepared_for_quantization
from quant.recovery.float_choice.sensitivity import Sensitivity
from quant.settings.precision_file import FloatRule, PrecisionFile, read_precision_file
from quant.settings.run_settings import RunSettings


@dataclass(frozen=True)
class GivenPrecisions:
    """What the user says of precisions.

    Attributes:
        file: The file, read; None where the settings name none.
        float_nodes: The products that it leaves in float.
    """

    file: PrecisionFile | None
    float_nodes: frozenset[str]


def given_precisions(settings: RunSettings, model: OnnxModel) -> GivenPrecisions:
    """Read the file that the settings name, and find its products in the model.

    Raises:
        SettingsError: It cannot be read, holds something else, or names products that the model does not have.
        BuildError: The model cannot be prepared for quantization.
    """
    if settings.precisions is None:
        return GivenPrecisions(None, frozenset())
    file = read_precision_file(settings.precisions)
    editor = prepared_for_quantization(model.light)
    return GivenPrecisions(file, file.float_nodes([node_key(node) for node in editor.nodes if is_product(node)]))


def rules_from_choice(
    found: Sequence[Sensitivity], in_float: Collection[str], macs: Mapping[str, int]
) -> list[FloatRule]:
    """The rules that say what a search left in float, and why.

    Args:
        found: All groups of products, see `quant.recovery.float_choice.sensitivity`.
        in_float: The products in float; those of no group were there before.
        macs: Multiply-accumulates of each product.
    """
    total = max(sum(macs.values()), 1)
    return [
        FloatRule(
            item.group.nodes,
            f"SQNR of the outputs {item.sqnr_db:.1f} dB where INT8 computes only this, "
            f"{100 * item.macs / total:.2f} % of the work",
        )
        for item in found
        if set(item.group.nodes) <= set(in_float)
    ]
