"""Export torchvision's resnet18 (random weights, fixed seed) and time PyTorch on it; prints JSON."""

import json
import statistics
import sys
from pathlib import Path

import numpy
import torch
from torchvision.models import resnet18

RUNS, WARM_UP = 200, 20


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


if __name__ == "__main__":
    torch.manual_seed(0)
    network = resnet18(weights=None).eval()
    images = torch.randn(4, 3, 224, 224)
    names = {
        "input_names": ["input"],
        "output_names": ["logits"],
        "dynamic_axes": {"input": {0: "N"}, "logits": {0: "N"}},
    }
    torch.onnx.export(network, images, sys.argv[1], opset_version=17, dynamo=False, **names)
    check = {"images": images.numpy(), "logits": network(images).detach().numpy()}
    numpy.savez(Path(sys.argv[1]).with_suffix(".npz"), **check)
    figures = {"fp32": {}, "fp16": {}}
    if torch.cuda.is_available():
        network = network.cuda()
        for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
            network = network.to(dtype)
            figures[name] = {batch: eager_ms(network, batch, dtype) for batch in (1, 8, 64)}
    print(json.dumps(figures))
