"""Measure what recovery costs: seconds and evaluations of each step, beside the rest of the run.

    python scripts/bench_recovery.py planted.onnx calibration-images/ evaluation-images/ --preprocess imagenet

docs/recovery.md has figures. The model is one whose INT8 loses too much, such as scripts/make_loud_channels.py makes.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="calibration images")
    parser.add_argument("eval", type=Path, help="labelled images")
    parser.add_argument("--preprocess", default="imagenet")
    parser.add_argument("--algo", default="entropy")
    parser.add_argument("--max-drop", type=float, default=0.5, help="points of top-1")
    parser.add_argument("--recover", default="auto", help="steps, as calib run takes them")
    options = parser.parse_args()

    from calib.processors import usable_processors
    from quant import RunSettings, run

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        document = run(
            RunSettings(
                model=options.model,
                data=options.data,
                eval=options.eval,
                preprocess=options.preprocess,
                algo=options.algo,
                max_drop=options.max_drop,
                recover=options.recover,
                backend="onnxruntime",
                out=Path(folder) / "out",
            )
        )
        seconds = time.perf_counter() - start
    found = document["recovery"]
    print(f"{options.model}: {document['data']['evaluation']['images']:,} images, {usable_processors()} processors")
    if found is None:
        sys.exit("INT8 does not lose too much, so nothing is searched")
    for step in found["steps"]:
        print(f"    {step['step']}: {step['seconds']:.1f} s, {step['outcome']} ({step['detail']})")
    print(f"    before: {found['before']}; looks: {'; '.join(found['looks'])}")
    print(f"    {found['evaluations']} evaluations, {found['seconds']:.0f} s of a run of {seconds:.0f} s")


if __name__ == "__main__":
    main()
