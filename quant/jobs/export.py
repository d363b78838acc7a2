"""Exports PyTorch to ONNX for deployment, and makes the check that people skip: the same results on real images."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from calib.files import Transaction
from datasets import BatchStream, DatasetError, ImageSource, Preprocessing, open_source, sample_indices
from quant.errors import ModelError, QuantError, SettingsError
from quant.jobs.torch_network import network_from_spec
from quant.onnx_graph.model import OnnxModel, load_model
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.settings.user_code import OF_USER_CODE

if TYPE_CHECKING:
    import torch

DEFAULT_SIZE = (224, 224)
INPUT = "input"
_OPSETS = (13, 20)  # per-channel scales came with 13; PyTorch's tracing exporter ends at 20


@dataclass(frozen=True)
class ExportSettings:
    """What to export and how to check it.

    Attributes:
        source: torchvision name, or `file.py:callable`.
        out: The ONNX file.
        data: Real images for the check.
        weights: File with a state dict; None keeps the network's initial weights.
        preprocess: Preset, or path of a TOML file.
        input_size: Height and width; None takes the preprocessing's, else 224 x 224.
        batch: Images in a batch of the exported model.
        dynamic_batch: Leave the batch size free.
        opset: ONNX operator set.
        num_images: Images for the check.
        tolerance: Largest accepted difference of an output value.
    """

    source: str
    out: Path
    data: Path
    weights: Path | None = None
    preprocess: str = "imagenet"
    input_size: tuple[int, int] | None = None
    batch: int = 1
    dynamic_batch: bool = False
    opset: int = 17
    num_images: int = 16
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        low, high = _OPSETS
        if not low <= self.opset <= high:
            raise SettingsError(f"opset: expected {low} (INT8 needs it) to {high}, found {self.opset}")
        for name in ("batch", "num_images"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if not self.tolerance >= 0:
            raise SettingsError(f"tolerance: expected a number of at least 0, found {self.tolerance}")
        if self.out.suffix.lower() != ".onnx":
            raise SettingsError(f"{self.out}: expected a name ending in .onnx")


@dataclass(frozen=True)
class ExportResult:
    """A checked export.

    Attributes:
        path: The ONNX file.
        inputs: Shape of its input; None for a free axis.
        outputs: Names of its outputs.
        images: Number of images compared.
        difference: Largest difference of an output value between PyTorch and ONNX Runtime.
        largest: Largest magnitude among PyTorch's outputs, to judge the difference by.
    """

    path: Path
    inputs: tuple[int | str | None, ...]
    outputs: tuple[str, ...]
    images: int
    difference: float
    largest: float


def export(settings: ExportSettings) -> ExportResult:
    """Export a network and compare ONNX Runtime with PyTorch on real images; no file is left if they differ.

    Raises:
        QuantError: The network cannot be made or exported, or the results differ by more than the tolerance.
        ModelError: The exported model cannot be run.
        DatasetError: The images cannot be used.
    """
    preprocessing = _preprocessing(settings)
    network = network_from_spec(settings.source, settings.weights)
    with Transaction(settings.out.parent) as files:
        path = files.stage(settings.out.name)
        names = _write_onnx(network, preprocessing, settings, path)
        model = load_model(path)
        images, difference, largest = _differences(network, model, preprocessing, settings)
        if not difference <= settings.tolerance:
            raise QuantError(
                f"export: ONNX Runtime and PyTorch differ by up to {difference:.3g} on {images} images (outputs reach "
                f"{largest:.3g}), more than the tolerance {settings.tolerance:g}; no file was written. A network whose "
                "steps depend on values, not shapes, cannot be traced"
            )
    return ExportResult(settings.out, model.inputs[0].shape, tuple(names), images, difference, largest)


def _preprocessing(settings: ExportSettings) -> Preprocessing:
    """Preprocessing with a settled size, layout and element type, from which the dummy input is made."""
    described = Preprocessing.from_spec(settings.preprocess)
    size = settings.input_size or described.size or DEFAULT_SIZE
    layout: Literal["nchw", "nhwc"] = "nhwc" if described.layout == "nhwc" else "nchw"
    dtype = "float32" if described.dtype == "auto" else described.dtype
    return replace(described, size=size, layout=layout, dtype=dtype)


def _write_onnx(
    network: torch.nn.Module, preprocessing: Preprocessing, settings: ExportSettings, path: Path
) -> list[str]:
    """Trace the network; returns the names of its outputs."""
    import torch

    batch = max(settings.batch, 2) if settings.dynamic_batch else settings.batch  # a batch of 1 might be broadcast
    dummy = torch.from_numpy(np.zeros((batch, *preprocessing.sample_shape), preprocessing.dtype))
    with _quiet():
        names = list(_run_network(network, dummy.numpy(), settings.source))
        axes = {name: {0: "batch"} for name in (INPUT, *names)} if settings.dynamic_batch else None
        try:
            torch.onnx.export(
                _flattened(network),
                (dummy,),
                str(path),
                input_names=[INPUT],
                output_names=names,
                dynamic_axes=axes,
                opset_version=settings.opset,
                dynamo=False,
            )
        except Exception as error:  # torch raises several kinds, depending on what it cannot export
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise QuantError(f"export: {settings.source}: PyTorch cannot export it: {reason[:300]}") from error
    return names


def _run_network(network: torch.nn.Module, inputs: NDArray[Any], source: str) -> dict[str, NDArray[Any]]:
    """PyTorch's outputs by name: keys of a dict, else `output`, or `output_0` and so on if there are several."""
    import torch

    _check_takes_images_alone(network, source)
    try:
        with torch.inference_mode():
            result = network(torch.from_numpy(np.ascontiguousarray(inputs)))
    except OF_USER_CODE as error:
        reason = " ".join(str(error).split())[:300]
        raise QuantError(
            f"export: {source}: fails on an input {list(inputs.shape)} ({reason}); "
            "give the size it takes with --input-size"
        ) from error
    named = _named(result)
    if not named or not all(isinstance(value, torch.Tensor) for value in named.values()):
        raise QuantError(f"export: {source}: expected tensors as outputs, found {type(result).__name__}")
    return {name: value.numpy() for name, value in named.items()}


def _check_takes_images_alone(network: torch.nn.Module, source: str) -> None:
    """Refuse a network that needs other inputs beside the images, by its own names of them.

    Raises:
        QuantError: It needs them.
    """
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):  # compiled code says nothing of its parameters
        return
    try:
        signature.bind(None)
    except TypeError:
        raise QuantError(
            f"export: {source}: expected a network that takes images alone, found forward{signature!s:.200}; return "
            "one that fills in the others, or export it with torch.onnx and give calib run the ONNX file, whose "
            "constant inputs --input states"
        ) from None


def _named(result: Any) -> dict[str, Any]:  # noqa: ANN401 - what a network may give
    if isinstance(result, dict):
        return {str(key): value for key, value in result.items()}
    if isinstance(result, list | tuple):
        return {"output" if len(result) == 1 else f"output_{i}": value for i, value in enumerate(result)}
    return {"output": result}


def _flattened(network: torch.nn.Module) -> torch.nn.Module:
    """The network with its outputs as a tuple, which tracing needs if the network returns a dict."""
    import torch

    class Flattened(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(_named(self.network(images)).values())

    return Flattened().eval()


def _differences(
    network: torch.nn.Module, model: OnnxModel, preprocessing: Preprocessing, settings: ExportSettings
) -> tuple[int, float, float]:
    """Images compared, largest difference, largest magnitude."""
    source = open_source(settings.data, inputs=[INPUT])
    if not isinstance(source, ImageSource):
        raise DatasetError(f"{settings.data}: expected images, found ready inputs; give a folder or a pack of images")
    stream = BatchStream(
        source,
        sample_indices(source, settings.num_images),
        preprocessing=preprocessing,
        # A size other than the traced one shows whether a free batch size is really free.
        batch_size=settings.batch + 2 if settings.dynamic_batch else settings.batch,
        input_name=INPUT,
    )
    session = OnnxRuntimeSession(model.light, name=str(settings.out))
    images, difference, largest = 0, 0.0, 0.0
    for batch in stream:
        rows = len(batch.names)
        filled = _filled_up(batch.inputs[INPUT], 0 if settings.dynamic_batch else settings.batch)
        expected = _run_network(network, filled, settings.source)
        found = session.run({INPUT: filled})
        for (name, theirs), ours in zip(expected.items(), found, strict=True):
            if theirs.shape != ours.shape:
                raise ModelError(f"export: '{name}': PyTorch gives shape {theirs.shape}, ONNX Runtime {ours.shape}")
            gap = np.abs(theirs.astype(np.float64) - ours.astype(np.float64))
            difference = max(difference, float(gap.max(initial=0))) if np.isfinite(gap).all() else float("nan")
            largest = max(largest, float(np.abs(theirs.astype(np.float64)).max(initial=0)))
        images += rows
        if math.isnan(difference):
            break
    return images, difference, largest


def _filled_up(array: NDArray[Any], batch: int) -> NDArray[Any]:
    """Fill a ragged last batch up to a fixed size by repeating its last image."""
    missing = max(batch - len(array), 0)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


@contextlib.contextmanager
def _quiet() -> Any:  # noqa: ANN401 - a generator, typed by the decorator
    """Silence PyTorch's deprecation and tracing warnings (the trace is checked) and the graph that it prints."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
