"""ONNX models, changed in their graph or in their bytes, through a whole `calib run` and `calib cache check`."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from campaign.cases import calib, untouched_if_refused

SIZE = 1000
SECONDS = 180

_IMAGES = 24
_NAMES = ("", "a" * 100_000, "\x1b]0;owned\x07", "x\ny", "../../x", "\u202ename", ": 3f", "naïve", "input", "logits")
_SIZES = (0, -1, 1, 2, 3, 5, 8, 4096, 2**20, 2**31 - 1, 2**31, 2**40, 2**63 - 1)


def prepare(folder: Path) -> None:
    """Write the demo, with few images, and finish one run in it."""
    demo = folder / "demo"
    calib("demo", demo, cwd=folder)
    for i, path in enumerate(sorted((demo / "imgs").rglob("*.png"))):
        if i % (319 // _IMAGES):
            path.unlink()
    _run(demo)


def _run(project: Path) -> str:
    return calib("run", "--quiet", "--num-images", 8, "--batch-size", 4, "--backend", "onnxruntime", cwd=project).word


def attempt(chance: random.Random, folder: Path) -> str:
    """Run a changed model in a folder that holds an earlier run."""
    project = folder / "project"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(folder / "demo", project)
    path = project / "model.onnx"
    kind = chance.random()
    if kind < 0.15:
        path.write_bytes(_changed_bytes(chance, path.read_bytes()))
    elif kind < 0.2:
        _replace_file(chance, path)
    else:
        model = onnx.load(path)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            chance.choice(_CHANGES)(chance, model)
        data = model.SerializeToString()
        if chance.random() < 0.1:  # names that are no text
            name = chance.choice((b"conv", b"input", b"logits", b"Relu"))
            data = data.replace(name, name[:-2] + b"\xff\xc3", chance.choice((1, 2, 99)))
        path.write_bytes(data)
    with untouched_if_refused(project / "calib-out") as ended:
        told = calib("run", "--quiet", "--num-images", 8, "--batch-size", 4, "--backend", "onnxruntime", cwd=project)
        ended.append(told)
    return told.word


def _changed_bytes(chance: random.Random, sound: bytes) -> bytes:
    data = bytearray(sound)
    for _ in range(chance.choice((1, 1, 3, 30))):
        at = chance.randrange(len(data))
        if chance.random() < 0.7:
            data[at] ^= 1 << chance.randrange(8)
        else:
            del data[at : at + chance.choice((1, 16, 1000))]
            data = data or bytearray(b"\0")
    return bytes(data)


def _replace_file(chance: random.Random, path: Path) -> None:
    path.unlink()
    kind = chance.choice(("pipe", "device", "folder", "sparse", "empty", "zip"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"PK\x03\x04 a zip archive" if kind == "zip" else b"")
        if kind == "sparse":
            os.truncate(path, 2**40)


def _nodes(model: onnx.ModelProto) -> Sequence[Any]:
    return model.graph.node or [helper.make_node("Relu", ["input"], ["logits"])]


def _tensors(model: onnx.ModelProto) -> list[str]:
    return [name for node in _nodes(model) for name in (*node.input, *node.output)] or ["input"]


def _rename(chance: random.Random, model: onnx.ModelProto) -> None:
    old, new = chance.choice(_tensors(model)), chance.choice(_NAMES)
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = new if value.name == old else value.name


def _misname(chance: random.Random, model: onnx.ModelProto) -> None:
    node = chance.choice(_nodes(model))
    names = chance.choice((node.input, node.output))
    if names:
        names[chance.randrange(len(names))] = chance.choice([*_NAMES, *_tensors(model)])


def _drop_node(chance: random.Random, model: onnx.ModelProto) -> None:
    if model.graph.node:
        del model.graph.node[chance.randrange(len(model.graph.node))]


def _repeat_node(chance: random.Random, model: onnx.ModelProto) -> None:
    model.graph.node.append(chance.choice(_nodes(model)))


def _swap_nodes(chance: random.Random, model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    chance.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _operator(chance: random.Random, model: onnx.ModelProto) -> None:
    node = chance.choice(_nodes(model))
    names = ("Relu", "Conv", "Loop", "If", "Sigmoid", "Frobnicate", "TopK", "Shape", "Softmax", "MatMul", "Log", "")
    node.op_type = chance.choice(names)
    node.domain = chance.choice(("", "", "", "com.example", "ai.onnx.ml"))


def _attribute(chance: random.Random, model: onnx.ModelProto) -> None:
    node = chance.choice(_nodes(model))
    if node.attribute and chance.random() < 0.7:
        attribute = chance.choice(node.attribute)
        if attribute.ints:
            attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice(_SIZES)
        else:
            attribute.i, attribute.type = chance.choice(_SIZES), chance.choice((1, 2, 3, 7, 4))
    else:
        names = ("axis", "group", "kernel_shape", "pads", "strides", "to", "epsilon", "alpha")
        node.attribute.append(helper.make_attribute(chance.choice(names), chance.choice((0, 1.5, [1, 1], "x", 1000))))


def _constant(chance: random.Random, model: onnx.ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = chance.choice(model.graph.initializer)
    kind = chance.choice(("dims", "type", "cut", "values", "external", "drop", "nan"))
    if kind == "dims" and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(_SIZES)
    elif kind == "type":
        tensor.data_type = chance.choice((0, 1, 7, 10, 11, 16, 23, 99, 1000, -1))
    elif kind == "cut":
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2 + 1]
    elif kind in ("values", "nan"):
        kinds = (b"\0\0\xc0\x7f", b"\0\0\x80\x7f") if kind == "nan" else (b"\xff\xff\x7f\x7f", b"\1\0\0\0", b"\0\0\0\0")
        tensor.raw_data = chance.choice(kinds) * (len(tensor.raw_data) // 4)
    elif kind == "external":
        tensor.data_location = TensorProto.EXTERNAL
        places = ("/etc/passwd", "../model.onnx", "model.onnx", "none.bin", "", "imgs", "/dev/zero")
        tensor.external_data.add(key="location", value=chance.choice(places))
        if chance.random() < 0.5:
            key = chance.choice(("offset", "length"))
            tensor.external_data.add(key=key, value=chance.choice(("-1", "x", "9" * 30, "4")))
    else:
        model.graph.initializer.remove(tensor)


def _shape(chance: random.Random, model: onnx.ModelProto) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    value = chance.choice(values) if values else model.graph.input.add()
    shape = value.type.tensor_type.shape
    if shape.dim and chance.random() < 0.8:
        dim = chance.choice(shape.dim)
        if chance.random() < 0.8:
            dim.dim_value = chance.choice(_SIZES)
        else:
            dim.dim_param = chance.choice(_NAMES)
    else:
        shape.dim.add().dim_value = chance.choice(_SIZES)


def _type(chance: random.Random, model: onnx.ModelProto) -> None:
    values = [*model.graph.input, *model.graph.output]
    if values:
        chance.choice(values).type.tensor_type.elem_type = chance.choice((0, 1, 2, 7, 8, 10, 11, 16, 1000))


def _ends(chance: random.Random, model: onnx.ModelProto) -> None:
    kind = chance.choice(("no output", "no input", "other output", "two outputs", "sequence"))
    graph = model.graph
    if kind == "no output":
        del graph.output[:]
    elif kind == "no input":
        del graph.input[:]
    elif kind == "sequence" and graph.output:
        graph.output[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
    else:
        if kind == "other output":
            del graph.output[:]
        graph.output.append(helper.make_tensor_value_info(chance.choice(_tensors(model)), 1, None))


def _version(chance: random.Random, model: onnx.ModelProto) -> None:
    versions = (-1, 0, 1, 5, 6, 7, 9, 11, 12, 13, 18, 21, 23, 30, 99, 2**31)
    if model.opset_import and chance.random() < 0.7:
        model.opset_import[0].version = chance.choice(versions)
    elif chance.random() < 0.5:
        model.ir_version = chance.choice(versions)
    else:
        del model.opset_import[:]


def _insert(chance: random.Random, model: onnx.ModelProto) -> None:
    """A node in the middle that makes large tensors, or values that are not finite."""
    node = chance.choice(_nodes(model))
    if not node.output:
        return
    name = node.output[0]
    shape = helper.make_tensor(
        "campaign_shape", TensorProto.INT64, [4], chance.choice(((1, 1, 1, 1), (1, 9, 999, 999)))
    )
    model.graph.initializer.append(shape)
    node.output[0] = "campaign_before"
    made = {
        "Expand": ["campaign_before", "campaign_shape"],
        "Tile": ["campaign_before", "campaign_shape"],
        "Log": ["campaign_before"],
        "Sqrt": ["campaign_before"],
        "Reciprocal": ["campaign_before"],
    }
    kind = chance.choice(list(made))
    model.graph.node.append(helper.make_node(kind, made[kind], [name]))


def _long_chain(chance: random.Random, model: onnx.ModelProto) -> None:
    last = _tensors(model)[-1]
    for i in range(chance.choice((10, 300))):
        model.graph.node.append(helper.make_node(chance.choice(("Relu", "Identity", "Abs")), [last], [f"chain{i}"]))
        last = f"chain{i}"


_CHANGES: tuple[Callable[[random.Random, onnx.ModelProto], None], ...] = (
    _rename,
    _misname,
    _drop_node,
    _repeat_node,
    _swap_nodes,
    _operator,
    _attribute,
    _attribute,
    _constant,
    _constant,
    _shape,
    _shape,
    _type,
    _ends,
    _version,
    _insert,
    _long_chain,
)
