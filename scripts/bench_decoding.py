"""Measure how many images per second are decoded and preprocessed, by threads: with simplejpeg and by Pillow alone.

    python scripts/bench_decoding.py imgs/ --side 32 --images 10000

Needs neither a GPU nor a model. Prints a row for each number of threads, in turn, and all of them as JSON at the end.
Whatever --threads says, only one thread at a time decodes images of up to 64x64; `--at-once` lets go of that.
"""

import argparse
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def images_per_second(source, chosen, side, threads, at_once):
    """Stream images and drop them."""
    from datasets import BatchStream, Preprocessing

    fit = Preprocessing.from_spec("imagenet").bound_to((None, 3, side, side), "float32")
    stream = BatchStream(source, chosen, preprocessing=fit, batch_size=64, threads=threads)
    with mock.patch.object(stream, "_turn", nullcontext()) if at_once else nullcontext():
        start = time.perf_counter()
        count = sum(len(batch.names) for batch in stream)
        return round(count / (time.perf_counter() - start))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images; again and again if there are fewer than --images")
    parser.add_argument("--side", type=int, default=32, help="height and width of the model's input")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--threads", default="1,2,4,8,16", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many is kept")
    parser.add_argument("--at-once", action="store_true", help="threads decode tiny images at the same time")
    options = parser.parse_args()

    import numpy as np

    from calib.processors import usable_processors
    from datasets import decoding, open_source
    from datasets.images.jpeg import in_use

    source = open_source(options.folder)
    chosen = np.arange(options.images) % len(source)
    for index in set(chosen.tolist()):  # reads each file once, so that no row waits for the disk
        source.content(index)
    version, reason = in_use()
    ways = {"Pillow alone": lambda: mock.patch.object(decoding, "common_jpeg", lambda data: None)}
    if reason:
        print(f"simplejpeg is not used: {reason}", flush=True)
    else:
        ways = {f"simplejpeg {version}": nullcontext, **ways}
    rows = []
    for threads in map(int, options.threads.split(",")):
        row = {"threads": threads}
        for name, way in ways.items():
            with way():
                found = [
                    images_per_second(source, chosen, options.side, threads, options.at_once)
                    for _ in range(options.rounds)
                ]
            row[f"{name}, images/s"] = max(found)
        print(json.dumps(row), flush=True)
        rows.append(row)
    about = {"processors": usable_processors(), "images": options.images, "side": options.side}
    print(json.dumps(about | {"at once": options.at_once, "rows": rows}))


if __name__ == "__main__":
    main()
