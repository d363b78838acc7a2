"""Measure two workers on two GPUs against one: calibration on Ray, from decoded memory.

    python scripts/bench_workers.py --model mobilenetv2.onnx --model vit.onnx --calib imgs/

Needs ray and two NVIDIA GPUs with TensorRT. Prints a row for each pass, with the engines and Ray's start apart, and the
ratio of the rates.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", type=Path, required=True, help="may be given several times")
    parser.add_argument("--calib", type=Path, required=True, help="calibration images")
    parser.add_argument("--images", type=int, default=1 << 20, help="in a pass; they repeat. Default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    options = parser.parse_args()
    from gpu_sections.collection import BuilderOptions, Subject
    from gpu_sections.workers import two_against_one

    from quant.onnx_graph.model import load_model

    for path in options.model:
        subject = Subject(load_model(path), options.calib, options.batch_size, BuilderOptions(level=0))
        for row in two_against_one(subject, options.images):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
