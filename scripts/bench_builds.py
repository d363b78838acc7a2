"""Time builds by TensorRT: what a process loads first, first and later builds, and several processes beside each other.

    python scripts/bench_builds.py model.onnx --cache calibration.cache --together 1,2,3

Each process gets ready as `calib run` lets a child do, then builds every precision twice. Prints a row of seconds for
each process. CUDA loads kernels lazily unless CUDA_MODULE_LOADING says otherwise. Needs an NVIDIA GPU with TensorRT.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def timed(what):
    """What a function gives, and its seconds."""
    start = time.perf_counter()
    found = what()
    return found, round(time.perf_counter() - start, 2)


def one_process(options):
    """Get ready, and build each precision twice; prints the seconds."""
    from calib.caches.cache import read_cache
    from quant.cuda.device import find_device
    from quant.onnx_graph.model import load_model
    from quant.settings.batch_range import BatchRange
    from quant.tensorrt.bindings import load_tensorrt
    from quant.tensorrt.building.build_job import load_builder
    from quant.tensorrt.building.builder import engine_from_onnx
    from quant.tensorrt.building.options import BuilderOptions

    gpu, cuda = timed(find_device)
    tensorrt, imported = timed(load_tensorrt)
    _held, kernels = timed(lambda: load_builder(tensorrt))
    row = {"gpu": gpu.name, "tensorrt": tensorrt.version, "cuda": cuda, "import": imported, "kernels": kernels}
    model, batch = load_model(options.model), BatchRange(options.batch_size, options.batch_size, options.batch_size)
    for precision in options.precision.split(","):
        cache = read_cache(options.cache) if precision == "int8" else None

        def build(precision=precision, cache=cache):
            builder = BuilderOptions(level=options.builder_level)
            return engine_from_onnx(model.proto, precision, batch, builder, cache=cache)

        row[precision] = [timed(build)[1] for _ in range(2)]
    print(json.dumps(row), flush=True)


def together(number):
    """Rows of so many processes that begin at the same moment."""
    command = [sys.executable, __file__, *sys.argv[1:], "--alone"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(number)]
    answers = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a process failed")
    return [json.loads(answer.splitlines()[-1]) for answer in answers]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cache", type=Path, help="scales for INT8")
    parser.add_argument("--precision", default="fp32,fp16,int8", help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--builder-level", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--together", default="1", help="numbers of processes, such as 1,2,3; default: %(default)s")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "int8" in options.precision and options.cache is None:
        parser.error("INT8 needs --cache; or leave int8 out of --precision")
    if options.alone:
        one_process(options)
        return
    for number in map(int, options.together.split(",")):
        for row in together(number):
            print(json.dumps({"processes": number, "loading": os.environ.get("CUDA_MODULE_LOADING", "LAZY"), **row}))


if __name__ == "__main__":
    main()
