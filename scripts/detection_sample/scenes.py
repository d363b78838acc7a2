"""Scenes of digits with boxes."""

import numpy as np
from PIL import Image, ImageFilter

HEIGHT, WIDTH, SIZE = 72, 96, 96  # a scene, and the model's input
TOP = (SIZE - HEIGHT) // 2  # of a scene in the letterbox


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


def letterboxed(picture):
    image = np.full((SIZE, SIZE), 114, np.uint8)
    image[TOP : TOP + HEIGHT] = picture
    return image
