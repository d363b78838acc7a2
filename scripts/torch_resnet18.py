"""Export torchvision's resnet18 (random weights, fixed seed) as `calib export` does, and time PyTorch on it.

python scripts/torch_resnet18.py MODEL.onnx PHOTOGRAPHS

Prints one line of JSON: the check against ONNX Runtime on the photographs, and PyTorch's milliseconds.
"""

import json
import statistics
import sys
from pathlib import Path

import torch
from torchvision.models import resnet18

ROOT = Path(__file__).resolve().parents[1]
RUNS, WARM_UP = 200, 20


def network():
    """The network that `calib export scripts/torch_resnet18.py:network` exports."""
    torch.manual_seed(0)
    return resnet18(weights=None)


def eager_ms(model, batch, dtype):
    images = torch.randn(batch, 3, 224, 224, device="cuda", dtype=dtype)
    times = []
    with torch.inference_mode():
        for i in range(RUNS + WARM_UP):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            model(images)
            end.record()
            torch.cuda.synchronize()
            if i >= WARM_UP:
                times.append(start.elapsed_time(end))
    return round(statistics.median(times), 4)


def exported(path, photographs):
    sys.path.insert(0, str(ROOT))  # the checkout need not be installed with PyTorch
    from quant.jobs.export import ExportSettings, export

    result = export(ExportSettings(f"{__file__}:network", path, photographs, dynamic_batch=True))
    return {"images": result.images, "difference": result.difference, "largest": result.largest}


if __name__ == "__main__":
    figures = {"export": exported(Path(sys.argv[1]), Path(sys.argv[2])), "fp32": {}, "fp16": {}}
    if torch.cuda.is_available():
        model = network().eval().cuda()
        for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
            model = model.to(dtype)
            figures[name] = {batch: eager_ms(model, batch, dtype) for batch in (1, 8, 64)}
    print(json.dumps(figures))
