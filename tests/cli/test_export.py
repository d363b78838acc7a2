"""`calib export`: PyTorch to ONNX, and the check against PyTorch."""

import importlib.util
import re

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="needs PyTorch")

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x):
        x = self.drop(torch.relu(self.norm(self.conv(x))))
        return self.head(x.mean((2, 3)))

def make():
    torch.manual_seed(0)
    return Net()

def two():
    class Two(Net):
        def forward(self, x):
            y = super().forward(x)
            return {"scores": y, "twice": 2 * y}
    return Two()

def depends_on_values():
    class Branch(Net):
        def forward(self, x):
            y = super().forward(x)
            return y + 10 if float(x.abs().sum()) > 0 else y
    return Branch()

def scaled():
    class Scaled(Net):
        def forward(self, x, scale):
            return scale * super().forward(x)
    return Scaled()

def number():
    return 3

def broken():
    raise RuntimeError("no luck")

def ends():
    raise SystemExit(0)
"""
EXPORT = ("export", "net.py:make", "--out", "out.onnx", "--data", "imgs", "--preprocess", "unit", "--input-size", "8x8")


@pytest.fixture
def project(colours):
    (colours / "net.py").write_text(NET)
    return colours


def replaced(old, new):
    return [new if part == old else part for part in EXPORT]


def test_it_exports_and_prints_the_largest_difference(calib, project):
    result = calib(*EXPORT, cwd=project)
    assert result.code == 0, result.err
    assert result.err == ""
    first, second = result.out.splitlines()
    assert first == "out.onnx: input 1 x 3 x 8 x 8, outputs output"
    difference = re.fullmatch(
        r"largest difference between ONNX Runtime and PyTorch on 16 images: (\S+) \(outputs reach \S+\)", second
    )
    assert float(difference[1]) < 1e-5
    model = onnx.load(project / "out.onnx")
    assert [entry.version for entry in model.opset_import if not entry.domain] == [17]
    assert not any(node.op_type in ("Dropout", "BatchNormalization") for node in model.graph.node)  # evaluation mode


def test_the_exported_model_serves_the_main_job(calib, project):
    assert calib(*EXPORT, "--dynamic-batch", cwd=project).code == 0
    assert onnx.load(project / "out.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert calib("run", "--model", "out.onnx", "--max-drop", 100, cwd=project).code == 4  # its weights are random


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_come_from_a_local_file(calib, project, wrapped):
    import onnxruntime
    import torch

    path = project / "out.onnx"
    network = {}
    exec(NET, network)
    torch.manual_seed(1)
    other = network["Net"]().eval()
    state = other.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, project / "net.pt")
    assert calib(*EXPORT, "--weights", "net.pt", cwd=project).code == 0
    images = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    found = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": images})[0]
    np.testing.assert_allclose(found, other(torch.from_numpy(images)).detach().numpy(), atol=1e-5)


def test_outputs_of_a_dict_keep_their_names(calib, project):
    result = calib(*replaced("net.py:make", "net.py:two"), "--batch", 5, cwd=project)
    assert result.code == 0, result.err
    assert result.out.startswith("out.onnx: input 5 x 3 x 8 x 8, outputs scores, twice\n")


def test_a_difference_above_the_tolerance_fails_and_leaves_no_file(calib, project, snapshot):
    """The dummy input is zero, so tracing takes another branch than real images do."""
    before = snapshot(project)
    result = calib(*replaced("net.py:make", "net.py:depends_on_values"), cwd=project)
    assert result.code == 1
    assert "ONNX Runtime and PyTorch differ by up to 10" in result.error
    assert "more than the tolerance 0.001; no file was written" in result.error
    assert snapshot(project) == before
    assert calib(*replaced("net.py:make", "net.py:depends_on_values"), "--tolerance", 11, cwd=project).code == 0


@pytest.mark.parametrize(
    ("source", "options", "part"),
    [
        ("net.py:number", (), "net.py:number: expected a torch.nn.Module, found int"),
        ("net.py:scaled", (), "expected a network that takes images alone, found forward(x, scale); return one that"),
        ("net.py:ends", (), "net.py:ends: line 47: SystemExit: 0"),
        ("net.py:broken", (), "RuntimeError: no luck"),
        ("net.py:absent", (), "net.py has no callable 'absent'; it has Net, broken, depends_on_values"),
        ("none.py:make", (), "none.py: no such file; expected file.py:callable"),
        ("net.py", (), "expected file.py:callable, found 'net.py'"),
        ("net.py:make", ("--weights", "none.pt"), "none.pt: cannot be read as weights"),
        ("net.py:make", ("--weights", "model.onnx"), "model.onnx: cannot be read as weights"),
        ("net.py:make", ("--opset", 12), "opset: expected 13 (INT8 needs it) to 20, found 12"),
        ("net.py:make", ("--data", "nowhere"), "nowhere: no such file or folder"),
        ("net.py:make", ("--out", "out.txt"), "out.txt: expected a name ending in .onnx"),
        ("net.py:make", ("--tolerance", -1), "tolerance: expected a number of at least 0"),
    ],
)
def test_it_fails_with_one_line_and_writes_nothing(calib, project, snapshot, source, options, part):
    before = snapshot(project)
    result = calib(*replaced("net.py:make", source), *options, cwd=project)
    assert result.code == 1
    assert part in result.error
    assert snapshot(project) == before


def test_weights_of_another_network_are_refused(calib, project):
    import torch

    torch.save({"conv.weight": torch.zeros(1)}, project / "other.pt")
    result = calib(*EXPORT, "--weights", "other.pt", cwd=project)
    assert result.code == 1
    assert "other.pt: the weights do not fit the network" in result.error


def test_a_torchvision_name_without_torchvision_says_what_to_install(calib, project):
    if importlib.util.find_spec("torchvision"):
        pytest.skip("torchvision is installed")
    result = calib(*replaced("net.py:make", "resnet18"), cwd=project)
    assert result.code == 1
    assert "torchvision is not installed; pip install 'calib-int8[torch]'" in result.error


def test_torchvision_s_resnet18(calib, project):
    pytest.importorskip("torchvision", reason="needs torchvision")
    result = calib(*replaced("net.py:make", "resnet18"), "--input-size", "64x64", cwd=project)
    assert result.code == 0, result.err
    result = calib(*replaced("net.py:make", "resnet0"), cwd=project)
    assert "torchvision has no model 'resnet0'" in result.error
