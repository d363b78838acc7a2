"""Digits to train and to judge by, and the training."""

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SIDE = 16  # pixels
PREPROCESSING = 'color = "grey"\nresize = "none"\nmean = [0.5]\nstd = [0.5]\n'


def varied(images, copies, generator):
    """Copies of images, shifted by up to two pixels of 16 and with noise; uint8 [copies * N, 16, 16]."""
    found = []
    for _ in range(copies):
        for image in images:
            large = np.array(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float64)
            down, right = generator.integers(-2, 3, 2)
            moved = np.roll(large, (down, right), (0, 1)) + generator.normal(0, 24, (SIDE, SIDE))
            found.append(np.clip(np.rint(moved), 0, 255).astype(np.uint8))
    return np.stack(found)


def digits(copies, seed=0):
    """Images and labels to train on, and others to judge by."""
    data = load_digits()
    images = np.rint(data.images / 16 * 255).astype(np.uint8)
    split = train_test_split(images, data.target, test_size=0.5, stratify=data.target, random_state=seed)
    generator = np.random.default_rng(seed)
    (train, judge), labels = split[:2], split[2:]
    shown = (varied(train, 4, generator), np.tile(labels[0], 4))
    return shown, (varied(judge, copies, generator), np.tile(labels[1], copies))


def tensor_of(images):
    return torch.from_numpy(images.astype(np.float32) / 255 - 0.5)[:, None] / 0.5


def trained(network, images, labels, epochs, after_each=lambda network: None):
    """Train a network; something may be done to it after each epoch."""
    torch.manual_seed(0)
    inputs, wanted = tensor_of(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        network.train()
        for part in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[part]), wanted[part]).backward()
            optimizer.step()
        schedule.step()
        after_each(network)
    return network.eval()
