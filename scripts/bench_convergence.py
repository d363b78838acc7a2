"""What it costs to know how many images are enough: calibration with and without the scales of parts of the images.

    python scripts/bench_convergence.py --model model.onnx --data imgs/ --num-images 512

Both are run in turn, in one process. The seconds are the processors', which other programs disturb less than a clock's,
and the ratio is that of the medians.
"""

import argparse
import statistics
import time

from calib.caches.convergence import ScalesOverImages
from calib.calibrator import calibrator_from_name
from datasets import BatchStream, Preprocessing, open_source, sample_indices
from quant import collect_statistics, load_model


def seconds_of(model, stream, algo, *, watched):
    """Processor seconds of a pass with its scales, and at how many numbers of images they were taken."""
    calibrator = calibrator_from_name(algo, stream)
    start = time.process_time()
    if watched:
        calibrator.over_images = ScalesOverImages(calibrator.algorithm, stream.images, stream.batch_size)
    collect_statistics(model, calibrator)
    amax = calibrator.compute_amax()
    parts = calibrator.over_images.parts(calibrator.statistics, amax) if watched else ()
    return time.process_time() - start, len(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--preprocess", default="imagenet")
    parser.add_argument("--algo", default="entropy")
    parser.add_argument("--num-images", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    model, source = load_model(options.model), open_source(options.data)
    info = model.inputs[0]
    fit = Preprocessing.from_spec(options.preprocess).bound_to(info.shape, info.dtype)
    stream = BatchStream(
        source, sample_indices(source, options.num_images), preprocessing=fit, input_name=info.name, batch_size=64
    )
    taken = {True: [], False: []}
    parts = 0
    for round_ in range(options.repeat + 1):
        for watched in (True, False) if round_ % 2 else (False, True):
            seconds, found = seconds_of(model, stream, options.algo, watched=watched)
            parts = max(parts, found)
            if round_:  # the first compiles and warms up
                taken[watched].append(seconds)
    with_, without = (statistics.median(taken[watched]) for watched in (True, False))
    print("| model | images | algorithm | scales taken | without, processor s | with | ratio |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {model.path.name} | {stream.images} | {options.algo} | {parts} | {without:.2f} | {with_:.2f} | "
        f"{with_ / without:.3f} |"
    )


if __name__ == "__main__":
    main()
