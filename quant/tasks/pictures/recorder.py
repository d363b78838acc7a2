"""The task of pictures as answers: how alike they are to FP32's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.drop import Scores
from quant.evaluation.outputs import OutputLayout
from quant.evaluation.recorder import Outputs
from quant.tasks.drawn_recorder import Weights, known
from quant.tasks.pictures.similarity import psnr, ssim
from quant.tasks.scored import Figure, Kept, ScoredRecorder, mean_of_draws

FLOOR_DB = 30.0  # below that, the noise shows
_ALIKE = 0.7  # correlation with the input's channel, of a picture made from it
Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PictureHead:
    """An output that is a picture.

    Attributes:
        output: Its place.
        name: Its name.
        axis: Its axis of images.
        channels_last: Is the last axis that of the channels?
        peak: The range of its values: 1, 2 (from -1 to 1) or 255.
    """

    output: int
    name: str
    axis: int
    channels_last: bool
    peak: float

    @property
    def text(self) -> str:
        """What it is, for people."""
        return f"output '{self.name}', a picture with values over a range of {self.peak:g}"

    def pictures(self, outputs: Sequence[Array]) -> Floats:
        """The pictures, float64 [N, C, H, W]."""
        by_image = np.moveaxis(outputs[self.output], self.axis, 0).astype(np.float64)
        if by_image.ndim == 3:
            return by_image[:, None]
        return np.moveaxis(by_image, 3, 1) if self.channels_last else by_image


def picture_head_from_outputs(
    layouts: Sequence[OutputLayout], outputs: Sequence[Any], inputs: Array | None, *, certain: bool
) -> PictureHead | None:
    """The output that is a picture; None where none is.

    Args:
        layouts: Of the outputs.
        outputs: Of some images.
        inputs: These images [N, C, H, W]; None where they are none.
        certain: Does the user say that it gives pictures? Otherwise they must look like the inputs.
    """
    for place, layout in enumerate(layouts):
        if layout.axis is None:
            continue
        by_image = layout.by_image(outputs[place])
        if by_image.ndim not in (3, 4) or min(by_image.shape[1:], default=0) < 1 or by_image.dtype.kind not in "fiu":
            continue
        for last in (False, True):
            head = PictureHead(place, layout.name, layout.axis, last, _peak(by_image))
            planes = head.pictures(outputs) if by_image.ndim == 4 or not last else None
            if planes is None or planes.shape[1] not in (1, 3, 4) or min(planes.shape[2:]) < 8:
                continue
            if certain or (inputs is not None and _looks_like(planes, inputs)):
                return head
    return None


def _peak(values: Array) -> float:
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind != "f" or high > 4 or low < -4:
        return 255.0
    return 2.0 if low < -0.3 else 1.0


def _looks_like(planes: Floats, inputs: Array) -> bool:
    """Do all channels look like the input's, at its size or enlarged by a whole factor?"""
    height, width = inputs.shape[2:]
    if planes.shape[1] not in (1, inputs.shape[1]) or planes.shape[2] % height or planes.shape[3] % width:
        return False
    across, down = planes.shape[3] // width, planes.shape[2] // height
    if across != down:
        return False
    small = planes.reshape(len(planes), planes.shape[1], height, down, width, across).mean(axis=(3, 5))
    given = inputs.astype(np.float64)
    if planes.shape[1] == 1 and inputs.shape[1] != 1:
        return False  # one channel of a coloured image is a mask or a depth as likely
    return all(abs(_correlation(small[:, channel], given[:, channel])) >= _ALIKE for channel in range(planes.shape[1]))


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    whole = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / whole if whole and np.isfinite(whole) else 0.0


class PictureRecorder(ScoredRecorder):
    """Keeps how alike each picture is to FP32's.

    Attributes:
        head: How pictures are read.
    """

    task, spec, what, decides = "image", "pictures", "pictures", "psnr"
    floor = f"a PSNR of {FLOOR_DB:g} dB"
    worst, worst_title = ("psnr", True), "PSNR against FP32's, dB"

    def __init__(self, head: PictureHead) -> None:
        """Start without pictures."""
        super().__init__()
        self.head, self.text = head, head.text

    @property
    def name(self) -> str:
        """Of the score."""
        return "PSNR"

    @property
    def unit(self) -> str:
        """Of the score."""
        return "dB"

    @property
    def figures_shown(self) -> Sequence[Figure]:
        """Both likenesses, and the least alike picture."""
        return (Figure("PSNR, dB", "psnr"), Figure("Lowest, dB", "lowest"), Figure("SSIM", "ssim", 4))

    def take(self, kept: Kept, outputs: Outputs, batch: EvaluationBatch, reference: Outputs) -> None:
        """Keep the likeness of a batch's pictures."""
        mine, right = self.head.pictures(outputs), self.head.pictures(reference)
        kept.values.setdefault("psnr", []).append(psnr(mine, right, self.head.peak))
        kept.values.setdefault("ssim", []).append(ssim(mine, right, self.head.peak))

    def scores(self, build: str, baseline: str, weights: Weights) -> Scores:
        """The mean PSNR of draws, dB."""
        return mean_of_draws(self.values(build, "psnr"), weights)

    def figures(self, build: str, baseline: str) -> dict[str, Any]:
        """PSNR in dB, SSIM."""
        found, alike = self.values(build, "psnr"), self.values(build, "ssim")
        return {
            "psnr": known(float(found.mean())),
            "lowest": known(float(found.min())),
            "ssim": known(float(alike.mean()), 5),
        }

    def told(self, row: dict[str, Any]) -> str:
        """A row's likeness in words."""
        low, high = row.get("agreement_ci95", (row["score"], row["score"]))
        return f"a PSNR of {row['score']:.2f} dB (95 % CI {low:.2f} to {high:.2f}), an SSIM of {row['ssim']:.4f}"

    def is_fit(self, row: dict[str, Any]) -> bool:
        """Do a build's pictures look like FP32's?"""
        return bool(row["score"] >= FLOOR_DB)
