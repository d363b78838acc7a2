"""Rebuild calib/sample: half of scikit-learn's digits as PNG files, and a small network trained on the other half."""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto, checker, helper, numpy_helper, save
from onnxruntime import InferenceSession
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn


def conv_bn(name, source, channels, kernel=3, stride=1):
    conv = nn.Conv2d(*channels, kernel, stride, padding=kernel // 2, bias=False)
    attributes = {"kernel_shape": conv.kernel_size, "strides": conv.stride, "pads": conv.padding * 2}
    bn = ("BatchNormalization", name.replace("conv", "bn"), [name], nn.BatchNorm2d(channels[1]), {"epsilon": 1e-5})
    return [("Conv", name, [source], conv, attributes), bn]


class Network(nn.Module):
    """One table for PyTorch and ONNX, because an exporter may fold BatchNormalization and choose names for tensors."""

    def __init__(self):
        super().__init__()
        self.rows = [  # ONNX op, output tensor, input tensors, torch part, ONNX attributes
            *conv_bn("stem/conv", "input", (1, 16)),
            ("Relu", "stem/relu", ["stem/bn"], nn.ReLU(), {}),
            *conv_bn("block1/conv1", "stem/relu", (16, 16)),
            ("Relu", "block1/relu1", ["block1/bn1"], nn.ReLU(), {}),
            *conv_bn("block1/conv2", "block1/relu1", (16, 16)),
            ("Add", "block1/add", ["block1/bn2", "stem/relu"], None, {}),
            ("Relu", "block1/relu2", ["block1/add"], nn.ReLU(), {}),
            *conv_bn("block2/conv1", "block1/relu2", (16, 32), stride=2),
            ("Relu", "block2/relu1", ["block2/bn1"], nn.ReLU(), {}),
            *conv_bn("block2/conv2", "block2/relu1", (32, 32)),
            *conv_bn("block2/conv_shortcut", "block1/relu2", (16, 32), kernel=1, stride=2),
            ("Add", "block2/add", ["block2/bn2", "block2/bn_shortcut"], None, {}),
            ("Relu", "block2/relu2", ["block2/add"], nn.ReLU(), {}),
            ("GlobalAveragePool", "pool", ["block2/relu2"], nn.AdaptiveAvgPool2d(1), {}),
            ("Flatten", "flatten", ["pool"], nn.Flatten(), {}),
            ("Gemm", "logits", ["flatten"], nn.Linear(32, 10), {"transB": 1}),
        ]
        self.parts = nn.ModuleDict({name: part for _, name, _, part, _ in self.rows if part})

    def forward(self, images):
        values = {"input": images}
        for _, name, inputs, part, _ in self.rows:
            values[name] = (part or torch.add)(*(values[i] for i in inputs))
        return values["logits"]


def train(images, labels, epochs=40):
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the order of sums, and so the weights, depends on the number of threads
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters())
    batches = [batch for _ in range(epochs) for batch in torch.randperm(len(images)).split(64)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, len(batches))
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[batch]), labels[batch], label_smoothing=0.05).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def onnx_from_network(network):
    state = {k.removeprefix("parts."): v for k, v in network.state_dict().items() if "num_batches" not in k}
    keys = {name: [k for k in state if k.startswith(f"{name}.")] for _, name, *_ in network.rows}  # in ONNX's order
    nodes = [helper.make_node(op, i + keys[name], [name], name, **attrs) for op, name, i, _, attrs in network.rows]
    ends = ("input", ["N", 1, 8, 8]), ("logits", ["N", 10])
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in ends]
    graph = helper.make_graph(nodes, "digits", *ends, [numpy_helper.from_array(v.numpy(), k) for k, v in state.items()])
    versions = {"ir_version": 8, "opset_imports": [helper.make_opsetid("", 17)]}
    return helper.make_model(graph, producer_name="calib-sample", **versions)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "calib" / "sample")
    out = parser.parse_args().out
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    images, labels = torch.from_numpy(pixels[:, None] / np.float32(255)), torch.from_numpy(digits.target)
    ours, held_out = train_test_split(np.arange(len(pixels)), test_size=0.5, stratify=labels, random_state=0)
    network = train(images[ours], labels[ours])
    save(model := onnx_from_network(network), out / "model.onnx")
    checker.check_model(model, full_check=True)
    with zipfile.ZipFile(out / "digits.zip", "w") as archive:
        for i in sorted(held_out):
            Image.fromarray(pixels[i]).save(png := io.BytesIO(), "PNG", optimize=True)
            archive.writestr(zipfile.ZipInfo(f"{labels[i]}/{i:04}.png"), png.getvalue())  # always dated 1980
    logits = InferenceSession(out / "model.onnx").run(None, {"input": images[held_out].numpy()})[0]
    difference = np.abs(logits - network(images[held_out]).detach().numpy()).max()
    print(f"top-1 {100 * np.mean(logits.argmax(1) == digits.target[held_out]):.2f} %, off torch by {difference:.1e}")
