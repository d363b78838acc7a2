"""Rebuild calib/sample/detection: scenes of scikit-learn's digits with boxes, and a small detector trained on others.

Half of the digits make the scenes that the detector is trained on, the other half those of the sample.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from onnx import helper, load, save
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

HEIGHT, WIDTH, SIZE, STRIDE, BINS = 72, 96, 96, 8, 8  # a scene; the model's input, its stride, bins of a distance
GRID = SIZE // STRIDE
TOP = (SIZE - HEIGHT) // 2  # of a scene in the letterbox
SCENES = 288


def scene(rng, pixels, labels):
    """A grey picture uint8 [HEIGHT, WIDTH] of one to six digits on a cloudy ground, their boxes and labels."""
    low, high = sorted(rng.uniform(0, 110, 2))
    clouds = Image.fromarray(rng.uniform(low, high, (5, 7)).astype(np.uint8))
    canvas = np.asarray(clouds.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)
    boxes, classes = [], []
    for _ in range(30):
        if len(boxes) == rng.integers(1, 7):
            break
        i, side = rng.integers(len(pixels)), int(rng.integers(14, 31))
        ink = np.asarray(Image.fromarray(pixels[i]).resize((side, side), Image.Resampling.BICUBIC), np.float64) / 255
        rows, columns = np.flatnonzero(ink.max(1) > 0.25), np.flatnonzero(ink.max(0) > 0.25)
        ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        height, width = ink.shape
        if height > HEIGHT or width > WIDTH:
            continue
        y, x = int(rng.integers(0, HEIGHT - height + 1)), int(rng.integers(0, WIDTH - width + 1))
        if any(x < b[2] and b[0] < x + width and y < b[3] and b[1] < y + height for b in boxes):
            continue
        part = canvas[y : y + height, x : x + width]
        part += ink * (rng.uniform(170, 255) - part)
        boxes.append((x, y, x + width, y + height))
        classes.append(int(labels[i]))
    picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.4))
    return np.asarray(picture), np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64)


def block(source, channels, stride=1):
    convolution = nn.Conv2d(source, channels, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.SiLU())


class Detector(nn.Module):
    """A net in the manner of YOLO v8 with one level: [N, 4 + 10, 144], boxes as centre and size in pixels."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(block(1, 16, 2), block(16, 24), block(24, 32, 2), block(32, 48, 2), block(48, 48))
        self.boxes = nn.Sequential(block(48, 32), nn.Conv2d(32, 4 * BINS, 1))
        self.scores = nn.Sequential(block(48, 48), nn.Conv2d(48, 10, 1))
        nn.init.constant_(self.scores[1].bias, -4.0)
        y, x = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
        self.register_buffer("points", torch.stack([x.flatten(), y.flatten()])[None] + 0.5)
        self.register_buffer("steps", torch.arange(BINS, dtype=torch.float32).reshape(1, BINS, 1, 1))

    def raw(self, images):
        features = self.body(images)
        return self.boxes(features).flatten(2), self.scores(features).flatten(2)

    def forward(self, images):
        boxes, scores = self.raw(images)
        shares = boxes.reshape(-1, 4, BINS, GRID * GRID).transpose(1, 2).softmax(1)
        sides = functional.conv2d(shares, self.steps).reshape(-1, 4, GRID * GRID)
        low, high = self.points - sides[:, :2], self.points + sides[:, 2:]
        return torch.cat([(low + high) / 2 * STRIDE, (high - low) * STRIDE, scores.sigmoid()], 1)


def targets(boxes, labels):
    """For each point the box and class that it must answer: those whose centre is at most a cell away."""
    box, label = np.zeros((GRID * GRID, 4), np.float32), np.full(GRID * GRID, -1)
    y, x = np.mgrid[:GRID, :GRID].reshape(2, -1) + 0.5
    best = np.full(GRID * GRID, np.inf)
    for b, c in zip((boxes + np.array([0, TOP, 0, TOP])) / STRIDE, labels, strict=True):
        distance = np.maximum(np.abs(x - (b[0] + b[2]) / 2), np.abs(y - (b[1] + b[3]) / 2))
        inside = (x > b[0]) & (x < b[2]) & (y > b[1]) & (y < b[3]) & (distance < 1) & (distance < best)
        nearest = np.zeros_like(inside)
        nearest[distance.argmin()] = True
        chosen = inside | (nearest & (distance < best))
        box[chosen], label[chosen], best[chosen] = b, c, distance[chosen]
    return box, label


def loss_of(network, images, boxes, labels):
    distributions, scores = network.raw(images)
    positive = labels >= 0
    wanted = functional.one_hot(labels.clamp(min=0), 10).float() * positive[..., None]
    found = scores.transpose(1, 2)
    focal = (found.sigmoid() - wanted).abs().pow(1.5) * functional.binary_cross_entropy_with_logits(
        found, wanted, reduction="none"
    )
    points = network.points.transpose(1, 2).expand(len(images), -1, -1)[positive]
    sides = torch.cat([points - boxes[positive][:, :2], boxes[positive][:, 2:] - points], 1).clamp(0, BINS - 1.01)
    logits = distributions.transpose(1, 2)[positive].reshape(-1, 4, BINS)
    low = sides.floor().long()
    share = sides - low
    logs = logits.log_softmax(-1)
    spread = -(
        logs.gather(2, low[..., None])[..., 0] * (1 - share) + logs.gather(2, low[..., None] + 1)[..., 0] * share
    )
    mean = (logits.softmax(-1) * torch.arange(BINS)).sum(-1)
    common = torch.minimum(mean, sides)
    overlap = (common[:, 0] + common[:, 2]) * (common[:, 1] + common[:, 3])
    area = (mean[:, 0] + mean[:, 2]) * (mean[:, 1] + mean[:, 3])
    union = area + (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3]) - overlap
    count = positive.sum().clamp(min=1)
    return 4 * focal.sum() / count + 0.5 * spread.mean() + 3 * (1 - overlap / union.clamp(min=1e-6)).mean()


def letterboxed(picture):
    image = np.full((SIZE, SIZE), 114, np.uint8)
    image[TOP : TOP + HEIGHT] = picture
    return image


def train(pixels, labels, steps):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the order of sums, and so the weights, depends on the number of threads
    network = Detector()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.006, steps)
    for step in range(steps):
        batch = [scene(rng, pixels, labels) for _ in range(24)]
        made = [targets(boxes, classes) for _, boxes, classes in batch]
        images = torch.from_numpy(
            np.stack([letterboxed(picture) for picture, _, _ in batch])[:, None] / np.float32(255)
        )
        optimizer.zero_grad()
        loss = loss_of(network, images, *(torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True)))
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(step, round(loss.item(), 3), flush=True)
    return network.eval()


def onnx_from_network(network, path):
    names = {"input_names": ["images"], "output_names": ["output0"]}
    axes = {"images": {0: "N"}, "output0": {0: "N"}}
    torch.onnx.export(
        network, torch.zeros(1, 1, SIZE, SIZE), path, dynamo=False, opset_version=17, dynamic_axes=axes, **names
    )
    model = load(path)
    model.producer_name, model.producer_version, model.doc_string = "calib-sample", "", ""
    digits = {str(i): str(i) for i in range(10)}
    about = {"task": "detect", "names": str({i: digits[str(i)] for i in range(10)}), "imgsz": f"[{SIZE}, {SIZE}]"}
    helper.set_model_props(model, {**about, "stride": str(STRIDE)})
    save(model, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "calib" / "sample" / "detection")
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    ours, held_out = train_test_split(np.arange(len(pixels)), test_size=0.5, stratify=digits.target, random_state=0)
    network = train(pixels[ours], digits.target[ours], given.steps)
    onnx_from_network(network, given.out / "model.onnx")
    rng = np.random.default_rng(1)
    with zipfile.ZipFile(given.out / "scenes.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(SCENES):
            picture, boxes, classes = scene(rng, pixels[held_out], digits.target[held_out])
            Image.fromarray(picture).save(file := io.BytesIO(), "JPEG", quality=88, optimize=True)
            archive.writestr(zipfile.ZipInfo(f"imgs/{i:03}.jpg"), file.getvalue())  # always dated 1980
            lines = [
                f"{c} {(b[0] + b[2]) / 2 / WIDTH:.5f} {(b[1] + b[3]) / 2 / HEIGHT:.5f} "
                f"{(b[2] - b[0]) / WIDTH:.5f} {(b[3] - b[1]) / HEIGHT:.5f}"
                for b, c in zip(boxes, classes, strict=True)
            ]
            archive.writestr(zipfile.ZipInfo(f"labels/{i:03}.txt"), "\n".join(lines) + "\n")
    print(*(f"{path.name}: {path.stat().st_size:,} bytes" for path in sorted(given.out.iterdir())), sep="\n")


if __name__ == "__main__":
    main()
