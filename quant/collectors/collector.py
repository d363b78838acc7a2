"""The interface between calibration and what runs the model for it.

A collector streams a calibrator's batches through a model and gives the calibrator the statistics of all activations.
What is fetched and counted is the same for all collectors (`quant.collectors.plan`); what runs the model differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from calib.calibrator import Calibrator
from quant.onnx_graph.model import OnnxModel

Advance = Callable[[int], None]  # called with the number of images that were just done

MEMORY_LIMIT = 1 << 30  # bytes of activations held at a time, by default


def ignore(images: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class Estimate:
    """What a pass is expected to take on the processor, after its first batch.

    Attributes:
        images: Images in all; 0 where that is not known.
        seconds_of_image: Seconds an image.
        bytes_of_image: Bytes of the activations of an image.
    """

    images: int
    seconds_of_image: float
    bytes_of_image: int


class Collector(Protocol):
    """Collects the statistics of a model's activations.

    Attributes:
        where: What ran the model in the last pass, if it was not ONNX Runtime on the CPU.
        seconds: Where the time of the last pass went, by stage; empty where that is not known.
    """

    @property
    def where(self) -> str: ...  # noqa: D102 - see the class
    @property
    def seconds(self) -> Mapping[str, float]: ...  # noqa: D102 - see the class

    def collect(self, model: OnnxModel, calibrator: Calibrator, advance: Advance = ignore) -> None:
        """Run a calibrator's batches through a model and give it their statistics.

        Args:
            model: FP32 model.
            calibrator: Provides the batches and receives the statistics.
            advance: Called with the number of images that were just done.

        Raises:
            NonFiniteError: An activation holds NaN or infinity; the message names the tensor and the image.
            ModelError: The model cannot be run.
        """
