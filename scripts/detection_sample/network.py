"""The detector, what it must answer, and how it is trained."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from detection_sample.scenes import SIZE, TOP, letterboxed, scene

STRIDE, BINS = 8, 8  # of the grid; of a distance's distribution
GRID = SIZE // STRIDE


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
