"""Times what a verdict costs on the CPU: exact INT8 beside FP32, and the check of the prepared model beside a run.

    python scripts/bench_evaluation.py model.onnx labelled-imgs/

Evaluates the model and its INT8 build as it is written on the same decoded batches, in turn. Then runs the whole job
once and times its check that preparation changes nothing. Prints seconds and ratios.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calib.processors import usable_processors
from quant.calibration.run_data import open_data
from quant.evaluation.accuracy import reader_from_batch
from quant.evaluation.unchanged import check_preparation
from quant.jobs.run import run
from quant.onnx_graph.model import load_model
from quant.onnxruntime.backend import processor_name
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.onnxruntime.session_in_parts import SessionInParts
from quant.progress import RecordingConsole
from quant.settings.run_settings import RunSettings


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--num-images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--preprocess", default="imagenet")
    parser.add_argument("--repeat", type=int, default=5, help="passes of each build; the median is printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = RunSettings(
            model=options.model,
            data=options.images,
            preprocess=options.preprocess,
            num_images=options.num_images,
            batch_size=options.batch_size,
            backend="onnxruntime",
            out=Path(folder),
        )
        start = time.perf_counter()
        run(settings, RecordingConsole())
        whole_run = time.perf_counter() - start
        model = load_model(settings.model)
        data = open_data(settings, model, RecordingConsole())
        quantized = load_model(Path(folder) / "model.int8.onnx")
        baseline = OnnxRuntimeSession(model.proto)
        exact = SessionInParts(quantized.proto, name="INT8 as written")
        whole = OnnxRuntimeSession(quantized.proto, name="INT8 as written", exact=True)
    batches = [batch.inputs for batch in data.calibration_stream(settings)]
    seconds = {"FP32": [], "INT8 as written": [], "INT8 as written, whole batches": []}
    for build in (baseline, exact, whole):
        build.run(batches[0])
    for _ in range(options.repeat):
        for times, build in zip(seconds.values(), (baseline, exact, whole), strict=True):
            start = time.perf_counter()
            for inputs in batches:
                build.run(inputs)
            times.append(time.perf_counter() - start)
    first = next(iter(data.evaluation_stream(settings)))
    reader = reader_from_batch(model.outputs, baseline, first)
    expected = baseline.run(first.inputs)
    start = time.perf_counter()
    check_preparation(model, first.inputs, expected, reader)
    check = time.perf_counter() - start
    images = sum(len(next(iter(inputs.values()))) for inputs in batches)
    print(f"{processor_name()}, {usable_processors()} processors; {options.model.name}, {images} images,")
    print(f"batch {options.batch_size}; median of {options.repeat}\n")
    base = statistics.median(seconds["FP32"])
    for name, times in seconds.items():
        print(f"{name:32} {statistics.median(times):7.2f} s {statistics.median(times) / base:6.2f} times FP32")
    share = 100 * check / whole_run
    print(f"\nThe whole run took {whole_run:.1f} s, its check of the prepared model {check:.2f} s: {share:.1f} %")


if __name__ == "__main__":
    main()
