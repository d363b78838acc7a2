"""Measure calibration on an NVIDIA GPU: kernels, images per second, agreement with the CPU, memory.

    python scripts/bench_gpu_calibration.py --model mobilenetv2.onnx --model vit.onnx --calib imgs/ --jpeg labelled/

Prints each row as it is measured, and all of them as JSON at the end; a section that fails leaves its error in its
place, and the exit code is then 1. `--photos FOLDER --photo-model FILE` adds large images.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
SECTIONS = "bits,bandwidth,stages,memory,jpeg,agreement,flat,cpu,photos,photo-cpu,int8,shapes"
DEFAULTS = {"images": 32768, "jpeg-images": 10000, "photo-images": 1024, "num-images": 512, "batches": 200}


def measure(options, section, subjects, photos):
    """The rows of a section, one after the other."""
    from gpu_sections import collection

    if section == "bits":
        yield collection.same_bits()
    elif section == "bandwidth":
        yield from collection.bandwidth(options.bytes, collection.SHAPES[0], list(collection.kinds_of_values(16)))
    elif section == "shapes":
        for shape in collection.SHAPES[1:]:
            yield from collection.bandwidth(options.bytes, shape, ["normal", "normal, half of them zero"])
    else:
        for subject in photos if "photo" in section else subjects:
            yield from of_subject(collection, section, subject, options)


def of_subject(collection, section, subject, options):
    if section == "agreement":
        yield from collection.agreement(subject, options.num_images)[0]
    elif section == "int8":
        yield from collection.accuracy(subject, collection.agreement(subject, options.num_images)[1], options.jpeg)
    elif section == "photos":
        yield collection.stages(subject)
        yield collection.throughput(subject, options.photo_images, decoded=False)
    elif section == "jpeg":
        subject = dataclasses.replace(subject, folder=options.jpeg)
        yield collection.throughput(subject, options.jpeg_images, decoded=False)
    elif section == "memory":
        yield collection.throughput(subject, options.images, decoded=True)
    elif section == "flat":
        yield collection.memory(subject, options.batches)
    elif section == "stages":
        yield collection.stages(subject)
    else:
        yield from collection.on_the_cpu(subject, 256 if "photo" in section else 2048)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", type=Path, default=[], help="may be given several times")
    parser.add_argument("--calib", type=Path, required=True, help="calibration images, 32x32")
    parser.add_argument("--jpeg", type=Path, required=True, help="labelled JPEG files, a folder for each class")
    for name in ("--photos", "--photo-model"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--sections", default=SECTIONS, help="default: %(default)s")
    parser.add_argument("--bytes", type=int, default=1 << 30, help="size of the tensor for the bandwidth")
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    from gpu_sections.collection import BuilderOptions, Subject

    from quant.cuda.device import find_device
    from quant.onnx_graph.model import load_model
    from quant.tensorrt.bindings import load_tensorrt

    host = {"gpu": vars(find_device()), "tensorrt": load_tensorrt().version}
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    host["cpu"] = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    print(json.dumps(host | {"processors": len(os.sched_getaffinity(0))}), flush=True)
    found, errors = {"host": host}, []
    with tempfile.TemporaryDirectory() as scratch:
        build = BuilderOptions(level=0, timing_cache=Path(scratch) / "timing.cache")
        subjects = [Subject(load_model(path), options.calib, 64, build) for path in options.model]
        photos = [Subject(load_model(options.photo_model), options.photos, 64, build)] if options.photo_model else []
        for section in options.sections.split(","):
            try:
                for row in measure(options, section, subjects, photos):
                    found.setdefault(section, []).append(row)
                    print(f"{section}: {json.dumps(row)}", flush=True)
            except Exception as error:  # noqa: BLE001 - the other sections are still worth having
                traceback.print_exc()
                errors.append(f"{section}: {type(error).__name__}: {error}")
    print(json.dumps(found | {"errors": errors}))
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()
