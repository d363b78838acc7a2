"""Rebuild calib/sample/detection: scenes of scikit-learn's digits with boxes, and a small detector trained on others.

Half of the digits make the scenes that the detector is trained on, the other half those of the sample.
"""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from detection_sample.network import STRIDE, train
from detection_sample.scenes import HEIGHT, SIZE, WIDTH, scene
from onnx import helper, load, save
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SCENES = 288


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
