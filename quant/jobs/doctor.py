"""What this machine can do: driver, CUDA, TensorRT, ONNX Runtime, simplejpeg, torch; and what works with them."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass

from calib.texts import wrapped
from quant.errors import QuantError


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        what: Its name.
        works: Whether it can be used.
        text: Its version, or what is wrong and what to install.
    """

    what: str
    works: bool
    text: str


def examine() -> list[Finding]:
    """Look at everything; something missing is a finding, never an error."""
    gpu, tensorrt = _gpu(), _tensorrt()
    onnxruntime = _package("onnxruntime", "runs models on the CPU; pip install onnxruntime")
    findings = [
        Finding("Python", works=True, text=platform.python_version()),
        *gpu,
        tensorrt,
        _tensorrt_for_rtx(),
        onnxruntime,
        _simplejpeg(),
        _package("torch", "only needed to export models; pip install 'calib-int8[torch]'"),
    ]
    on_gpu = gpu[-1].works and tensorrt.works
    missing = " and ".join(finding.what for finding in (gpu[-1], tensorrt) if not finding.works)
    return [
        *findings,
        Finding("--backend onnxruntime", onnxruntime.works, "open" if onnxruntime.works else "needs ONNX Runtime"),
        Finding("--backend tensorrt", on_gpu, "open" if on_gpu else f"needs {missing}"),
        _native(tensorrt, on_gpu=on_gpu),
    ]


def _gpu() -> list[Finding]:
    """Driver and GPU; the last one says whether a GPU can be used."""
    from quant.cuda.device import find_device

    try:
        device = find_device()
    except QuantError as error:
        return [Finding("GPU", works=False, text=str(error))]
    return [
        Finding("NVIDIA driver", works=True, text=f"supports CUDA up to {device.driver_cuda}"),
        Finding("CUDA runtime", works=True, text=device.runtime_cuda),
        Finding(
            "GPU",
            works=True,
            text=f"{device.name}, compute capability {device.compute_capability}, {device.memory >> 20} MiB",
        ),
    ]


def _tensorrt() -> Finding:
    from quant.tensorrt.bindings import load_tensorrt
    from quant.tensorrt.building.options import default_tactic_sources

    try:
        tensorrt = load_tensorrt()
    except QuantError as error:
        return Finding("TensorRT", works=False, text=str(error))
    sources = default_tactic_sources(tensorrt)
    return Finding(
        "TensorRT",
        works=True,
        text=tensorrt.version
        + (f", without cuBLAS and cuDNN (tactic sources {', '.join(sources)})" if sources else ""),
    )


def _tensorrt_for_rtx() -> Finding:
    from quant.tensorrt.bindings import load_tensorrt_for_rtx

    try:
        tensorrt = load_tensorrt_for_rtx()
    except QuantError as error:
        return Finding(
            "TensorRT for RTX", works=False, text=f"only needed for calib build --target tensorrt-rtx; {error}"
        )
    capabilities = ", ".join(tensorrt.capabilities)
    text = f"{tensorrt.version}, builds for compute capability {capabilities} without a GPU"
    return Finding("TensorRT for RTX", works=True, text=text)


def _native(tensorrt: Finding, *, on_gpu: bool) -> Finding:
    from quant.tensorrt.bindings import load_tensorrt

    if not on_gpu:
        return Finding("--calibrator tensorrt", works=False, text="needs --backend tensorrt")
    has_calibrators = load_tensorrt().has_calibrators
    text = "open" if has_calibrators else f"TensorRT {tensorrt.text} has no calibrators; --calibrator toolkit is open"
    return Finding("--calibrator tensorrt", has_calibrators, text)


def _simplejpeg() -> Finding:
    """What decodes JPEG files, beside Pillow or in its place."""
    from PIL import __version__ as pillow

    from datasets.images.jpeg import in_use

    version, reason = in_use()
    if not reason:
        text = f"{version}, decodes the JPEG files of common kinds; Pillow {pillow} decodes the others"
        return Finding("simplejpeg", works=True, text=text)
    advice = "" if version else "; pip install simplejpeg"
    text = f"only needed for speed; Pillow {pillow} decodes JPEG files: {reason}{advice}"
    return Finding("simplejpeg", works=False, text=text)


def _package(name: str, otherwise: str) -> Finding:
    """Look up a package without importing it: torch takes seconds."""
    try:
        return Finding(name, works=True, text=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, works=False, text=f"not installed: {otherwise}")


def json_from_findings(findings: list[Finding]) -> str:
    """The findings as JSON: a list of objects with `what`, `works` and `text`."""
    return json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=1) + "\n"


def text_from_findings(findings: list[Finding], width: int | None = None) -> str:
    """The findings as text, one line each; at `width` columns, long ones go on below their own column."""
    widest = max(len(finding.what) for finding in findings)
    lines = (wrapped(f"{'ok' if f.works else '--'}  {f.what:<{widest}}  {f.text}", width, widest + 6) for f in findings)
    return "\n".join(line for part in lines for line in part) + "\n"
