"""Hold the forms of a Q/DQ model against each other on ONNX Runtime: accuracy and speed on this processor.

    python scripts/compare_number_forms.py --shared ../shared --images 1000 resnet20 mobilenetv2 vit

Scales are entropy's of 512 images. docs/explicit-models.md has the table. Times are ratios to FP32 in the same process.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - the checkout need not be installed
from gpu_sections.bench import Bench, Results, top1  # noqa: E402

from datasets import BatchStream, Preprocessing, open_source  # noqa: E402
from quant.onnx_graph.light_model import whole_model  # noqa: E402
from quant.onnxruntime.session import OnnxRuntimeSession  # noqa: E402
from quant.qdq.number_form import FOR_TENSORRT, for_onnxruntime  # noqa: E402
from quant.qdq.writer import light_qdq_model  # noqa: E402

BATCH, TIMED = 64, 7
FORMS = {
    "TensorRT's form": FOR_TENSORRT,
    "for ONNX Runtime, 8 bits": for_onnxruntime(reduce_range=False),
    "for ONNX Runtime, 7 bits": for_onnxruntime(reduce_range=True),
}


def images(bench, count):
    source = open_source(bench.folder("cifar10-test"))
    preprocessing = Preprocessing.from_spec("imagenet").bound_to((None, 3, 32, 32), "float32")
    chosen = np.arange(0, len(source), len(source) // count)
    batches = list(BatchStream(source, chosen, preprocessing=preprocessing, batch_size=250))
    return [np.concatenate(column) for column in zip(*((b.inputs["input"], b.labels) for b in batches), strict=True)]


def answers(session, pixels):
    return np.concatenate([session.run({"input": part})[0] for part in np.split(pixels, range(250, len(pixels), 250))])


def seconds(sessions, pixels):
    """The best of several runs of each session, in turn."""
    found = {name: [] for name in sessions}
    for _ in range(TIMED):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run({"input": pixels})
            found[name].append(time.perf_counter() - start)
    return {name: min(times) for name, times in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--work", type=Path, default=Path("number-forms"))
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    bench = Bench(options.shared, options.work, Results(options.work / "results.json"))
    pixels, labels = images(bench, options.images)
    print("| model | form | top-1, % | SQNR, dB | the same, exactly, dB | time / FP32 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.models:
        model, cache = bench.model(name), bench.cpu_cache(name, "entropy")
        made = {
            form: whole_model(light_qdq_model(model.light, cache.amax, form=numbers)) for form, numbers in FORMS.items()
        }
        sessions = {"FP32": OnnxRuntimeSession(model.proto)} | {f: OnnxRuntimeSession(m) for f, m in made.items()}
        times = seconds(sessions, pixels[:BATCH])
        expected = answers(sessions["FP32"], pixels)
        level = lambda found: 10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum())  # noqa: E731, B023
        print(f"| {name} | FP32 | {top1(expected, labels):.2f} | | | 1.00 |")
        for form, proto in made.items():
            found, exact = answers(sessions[form], pixels), answers(OnnxRuntimeSession(proto, exact=True), pixels)
            row = (name, form, f"{top1(found, labels):.2f}", f"{level(found):.1f}", f"{level(exact):.1f}")
            print(f"| {' | '.join(row)} | {times[form] / times['FP32']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
