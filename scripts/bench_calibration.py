"""Time calibration by this toolkit and its peers on the same images, in turn, each in its own process.

    python scripts/bench_calibration.py model.onnx imgs/ --eval labelled-imgs/

Prints seconds, ratio to the plain FP32 forward pass of the same images, peak memory and INT8 top-1. A peer that is not
installed is left out. With `--results FILE`, the figures are added to a file from which `scripts/benchmark_page.py`
makes docs/benchmarks.md.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.rounds import measure_rounds, table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--eval", help="labelled images for INT8 top-1; without them, it is not measured")
    parser.add_argument("--algo", default="entropy", choices=["entropy", "minmax", "percentile"])
    parser.add_argument("--num-images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--preprocess", default="imagenet")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the median is printed")
    parser.add_argument("--tools", default="calib,onnxruntime.quantization,nvidia-modelopt")
    parser.add_argument("--modelopt-python", default=sys.executable, help="interpreter that has nvidia-modelopt")
    parser.add_argument("--results", type=Path, help="file to add the figures to, one JSON document per line")
    options = parser.parse_args()
    settings = {
        "model": options.model,
        "data": options.images,
        "preprocess": options.preprocess,
        "algo": options.algo,
        "num_images": options.num_images,
        "batch_size": options.batch_size,
        "sampling": "first",
        "eval": options.eval,
    }
    result = measure_rounds(settings, options.tools.split(","), options.repeat, options.modelopt_python)
    host = result["machine"]
    print(f"{host['cpu']}, {host['processors']} processors, Python {host['python']}; {result['model']},")
    print(
        f"{result['num_images']} images, batch {result['batch_size']}, {result['algo']}; median of {options.repeat}\n"
    )
    print("\n".join(table(result)))
    if options.results:
        with options.results.open("a") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
