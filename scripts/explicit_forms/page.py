"""The tables of docs/explicit-models.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from explicit_forms.forms import forms
from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import TensorRT
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.building.options import BuilderOptions

BEGIN, END = "<!-- what follows is written by scripts/explicit_support.py -->", "<!-- end -->"
LISTED = ("8.6.0", "10.16.1.11", "11.4.0.106")
_CAPABILITY = "8.9"
_SAID = re.compile(r"TensorRT for RTX [\d.]+ (cannot read|cannot build this:?) ")
# What the bindings tell of explicit and implicit quantization.
API = (
    ("strongly typed networks", "NetworkDefinitionCreationFlag.STRONGLY_TYPED"),
    ("calibrators, and so caches", "IInt8EntropyCalibrator2"),
    ("dynamic ranges of tensors", "ITensor.set_dynamic_range"),
    ("INT8 by the builder's choice", "BuilderFlag.INT8"),
    ("FP16 by the builder's choice", "BuilderFlag.FP16"),
    ("precisions of layers", "BuilderFlag.OBEY_PRECISION_CONSTRAINTS"),
    ("FP8", "DataType.FP8"),
    ("INT4", "DataType.INT4"),
    ("INT64", "DataType.INT64"),
    ("builds for a GPU that is not there", "IBuilderConfig.set_compute_capability"),
)


def answer(rtx: TensorRT, proto: Any) -> str:
    """What TensorRT for RTX does with a model: "builds", or "refused" with the node and NVIDIA's words."""
    size = BatchRange(1, 1, 1)
    try:
        engine_from_onnx(proto, "int8", size, BuilderOptions(), tensorrt=rtx, capability=_CAPABILITY)
    except BuildError as error:
        said = _SAID.sub("", str(error)).split("In checkType")[0].split(" Please set")[0]
        return f"refused: {said.strip().rstrip('.')}".replace("|", "/")
    return "builds"


def table_of_forms(rtx: TensorRT) -> str:
    """What 8.6.0 and TensorRT for RTX accept."""
    rows = [
        [form.text, form.on_8 or "not tried", answer(rtx, form.proto), "yes" if form.ours else ""] for form in forms()
    ]
    return _table(["form", "TensorRT 8.6.0", f"TensorRT for RTX {rtx.version}", "written here"], rows)


def table_of_api(rtx: TensorRT, listings: Path) -> str:
    """What the bindings have."""
    listed = [json.loads((listings / f"{release}.json").read_text(encoding="utf-8")) for release in LISTED]
    lookups: list[Callable[[str], bool]] = [*(_listed(each) for each in listed), _imported(rtx.module)]
    rows = [[text, f"`{name}`", *("yes" if has(name) else "no" for has in lookups)] for text, name in API]
    return _table(["what", "name", *LISTED, f"RTX {rtx.version}"], rows)


def with_tables(page: str, tables: Sequence[str]) -> str:
    """The page with these tables in place of those in it."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n\n".join([before + BEGIN, *tables, END]) + after


def _listed(listing: dict[str, Any]) -> Callable[[str], bool]:
    def has(name: str) -> bool:
        owner, _, member = name.partition(".")
        entry = listing.get(owner)
        return entry is not None and (
            not member or member in entry.get("attrs", {}) or member in entry.get("members", {})
        )

    return has


def _imported(module: Any) -> Callable[[str], bool]:
    def has(name: str) -> bool:
        owner, _, member = name.partition(".")
        return hasattr(module, owner) and (not member or hasattr(getattr(module, owner), member))

    return has


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
