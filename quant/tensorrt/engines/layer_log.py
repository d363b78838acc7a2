"""The layers of an engine as TensorRT for RTX logs them when it has built one: they are known without a GPU.

The engine inspector needs the engine on its GPU. The builder's verbose log has the same facts in a line a layer:
`Name: ..., LayerType: ..., Inputs: [ { Name: ..., Datatype: ... }], Outputs: [...], Metadata: [ONNX Layer: ...]`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from quant.tensorrt.log import LAYERS

_KEYS = (", LayerType: ", ", Inputs: [", ", Constants: [", ", Outputs: [", ", TacticName: ", ", Metadata: ")
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: .*?Datatype: (\w+), Format: (.*?) ?\}")


def inspector_text(message: str) -> str:
    """The message in the form of the engine inspector's JSON; empty if it is none of layers."""
    if not message.startswith(LAYERS):
        return ""
    lines = [line for line in message.split("\n")[1:] if line.startswith("Name: ") and ", LayerType: " in line]
    return json.dumps({"Layers": [_entry(line) for line in lines]})


def _entry(line: str) -> dict[str, Any]:
    found, rest = {}, line.removeprefix("Name: ")
    key = "Name"
    for mark in _KEYS:
        before, sign, after = rest.partition(mark)
        if sign:
            found[key], key, rest = before, mark.strip(", :["), after
    found[key] = rest
    return {
        "Name": found["Name"],
        "LayerType": found.get("LayerType", ""),
        "Inputs": _tensors(found.get("Inputs", "")),
        "Constants": _tensors(found.get("Constants", "")),
        "Outputs": _tensors(found.get("Outputs", "")),
        "Metadata": found.get("Metadata", ""),
    }


def _tensors(text: str) -> list[dict[str, str]]:
    return [{"Name": name, "Datatype": kind, "Format": form} for name, kind, form in _TENSOR.findall(text)]
