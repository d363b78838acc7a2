"""Make a net like EfficientNet for CIFAR-10: inverted bottlenecks with SiLU and squeeze-excite.

    python scripts/make_effnet.py effnet.onnx --teacher mobilenetv2.onnx --data cifar10-calib.tar.gz

It learns the teacher's answers on the archive's images, shifted and mirrored, so it needs no labels. Its accuracy is
that of a thousand images; what it is for is the shape of its graph. Needs PyTorch.
"""

import argparse
import io
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnxruntime
import torch
from PIL import Image
from recovery_nets.networks import Bottleneck
from torch import nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCKS = (
    (32, 16, 1, 1), (16, 24, 2, 6), (24, 24, 1, 6), (24, 40, 2, 6), (40, 40, 1, 6), (40, 80, 2, 6), (80, 80, 1, 6),
    (80, 112, 1, 6), (112, 112, 1, 6),
)  # fmt: skip


def network():
    blocks = [Bottleneck(i, o, nn.SiLU, nn.Sigmoid, stride, ratio) for i, o, stride, ratio in BLOCKS]
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU(), *blocks,
        nn.Conv2d(112, 320, 1, bias=False), nn.BatchNorm2d(320), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(320, 10),
    )  # fmt: skip


def images_of(archive):
    with tarfile.open(archive) as file:
        members = sorted((m for m in file if m.name.lower().endswith((".jpg", ".jpeg", ".png"))), key=lambda m: m.name)
        decoded = [Image.open(io.BytesIO(file.extractfile(member).read())).convert("RGB") for member in members]
    pixels = np.stack([np.asarray(image, np.float32) for image in decoded]) / 255
    return ((pixels - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


def varied(images, generator):
    """The images mirrored or not, and shifted by up to four pixels."""
    found = np.empty_like(images)
    for i, image in enumerate(images):
        turned = image[:, :, :: generator.choice((-1, 1))]
        down, right = generator.integers(0, 9, 2)
        found[i] = np.pad(turned, ((0, 0), (4, 4), (4, 4)))[:, down : down + 32, right : right + 32]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", type=Path, required=True, help="ONNX classifier of the same images")
    parser.add_argument("--data", type=Path, required=True, help="archive of images")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    images = images_of(options.data)
    teacher = onnxruntime.InferenceSession(options.teacher, providers=["CPUExecutionProvider"])
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    for epoch in range(options.epochs):
        shown = varied(images, generator)
        answers = np.concatenate(
            [teacher.run(None, {"input": part})[0] for part in np.split(shown, range(64, len(shown), 64))]
        )
        same = 0
        for part in torch.from_numpy(generator.permutation(len(shown))).split(64):
            optimizer.zero_grad()
            logits = model(torch.from_numpy(shown[part.numpy()]))
            wanted = torch.from_numpy(answers[part.numpy()])
            nn.functional.cross_entropy(logits, wanted.softmax(1)).backward()
            optimizer.step()
            same += int((logits.argmax(1) == wanted.argmax(1)).sum())
        schedule.step()
        print(f"epoch {epoch + 1}: {100 * same / len(shown):.1f} % as the teacher", flush=True)
    torch.onnx.export(
        model.eval(), (torch.from_numpy(images[:1]),), str(options.out), input_names=["input"], output_names=["logits"],
        dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}}, opset_version=17, dynamo=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
