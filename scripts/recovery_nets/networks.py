"""Nets in PyTorch: residual blocks whose channels die; inverted bottlenecks with SiLU or HardSwish and gates."""

import torch
from torch import nn


class SqueezeExcite(nn.Module):
    def __init__(self, channels, gate):
        super().__init__()
        inner = max(channels // 4, 4)
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        self.gate = gate()

    def forward(self, x):
        pooled = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(torch.relu(self.reduce(pooled))))


class Bottleneck(nn.Module):
    """An inverted bottleneck: expand, depthwise, squeeze-excite, project; the stream between blocks is linear."""

    def __init__(self, inputs, outputs, activation, gate, stride=1, ratio=4):
        super().__init__()
        inner = inputs * ratio
        self.adds = inputs == outputs and stride == 1
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), activation(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), activation(),
            SqueezeExcite(inner, gate),
            nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x):
        return x + self.layers(x) if self.adds else self.layers(x)


def bottlenecks(activation, gate):
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), activation(),
        Bottleneck(16, 16, activation, gate), Bottleneck(16, 24, activation, gate, 2),
        Bottleneck(24, 24, activation, gate), Bottleneck(24, 24, activation, gate),
        nn.Conv2d(24, 64, 1, bias=False), nn.BatchNorm2d(64), activation(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        changes = inputs != outputs or stride != 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x):
        return torch.relu(self.shortcut(x) + self.layers(x))


def residuals():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Residual(16, 16), Residual(16, 16), Residual(16, 32, 2), Residual(32, 32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def inner_channels(network):
    """Inside each residual block: the normalization, the convolution that reads it, and its channels by thirds."""
    generator = torch.Generator().manual_seed(0)
    for block in (module for module in network if isinstance(module, Residual)):
        norm, reader = block.layers[1], block.layers[3]
        yield norm, reader, torch.randperm(norm.num_features, generator=generator).tensor_split(3)


@torch.no_grad()
def kill_channels(network):
    """Keep a third of the channels dead, half of them with a bias that what follows relies on."""
    for norm, _, (dead, _, _) in inner_channels(network):
        norm.weight[dead] = 1e-7
        norm.bias[dead[::2]] = norm.bias[dead[::2]].abs()
        norm.bias[dead[1::2]] = -norm.bias[dead[1::2]].abs()


@torch.no_grad()
def shrink_channels(network, factor=1024):
    """Make another third tiny; what reads them makes up for it, so the function stays the same."""
    for norm, reader, (_, tiny, _) in inner_channels(network):
        norm.weight[tiny] /= factor
        norm.bias[tiny] /= factor
        reader.weight[:, tiny] *= factor


NETWORKS = {
    "dead and tiny channels": residuals,
    "SiLU and squeeze-excite": lambda: bottlenecks(nn.SiLU, nn.Sigmoid),
    "HardSwish and squeeze-excite": lambda: bottlenecks(nn.Hardswish, nn.Hardsigmoid),
}
