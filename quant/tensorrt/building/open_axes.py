"""Axes other than the batch that a model leaves open: the sizes of the data fix them for a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx

from quant.errors import BuildError
from quant.onnx_graph.light_model import LightModel
from quant.onnx_graph.model import OnnxModel

Sizes = Mapping[str, Sequence[int]]


def has_open_axes(model: OnnxModel) -> bool:
    """Whether an input leaves an axis other than the batch open."""
    return any(not isinstance(side, int) for info in model.inputs for side in info.shape[1:])


def with_sizes(model: OnnxModel, sizes: Sizes) -> OnnxModel:
    """The model with its open axes fixed; weights and nodes stay as they are. One without any is given back.

    Shapes that were inferred for open axes are removed.

    Args:
        model: The model; not edited.
        sizes: Shape of one sample of each input, without the batch axis. An input that is not in it stays open.

    Raises:
        BuildError: A sample has another number of axes than the input.
    """
    if not has_open_axes(model):
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.graph)
    open_inputs = {info.name for info in model.inputs if any(not isinstance(side, int) for side in info.shape[1:])}
    for value in proto.graph.input:
        if value.name not in open_inputs or value.name not in sizes:
            continue
        dims = value.type.tensor_type.shape.dim[1:]
        sample = sizes[value.name]
        if len(sample) != len(dims):
            raise BuildError(
                f"{model.path}: input '{value.name}': expected {len(dims)} axes besides the batch, found {len(sample)} "
                f"({list(sample)}); give data of the input's shape"
            )
        for dim, side in zip(dims, sample, strict=True):
            if dim.dim_value <= 0:
                dim.dim_value = int(side)  # a name of the axis goes with it
    del proto.graph.value_info[:]
    return replace(model, light=LightModel(proto, model.light.weights))
