"""Does FP32 answer far better after another preprocessing? Tried on a few labelled images; nothing is ever switched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datasets import DatasetError, ImageSource, Preprocessing
from datasets.preprocessing import PRESETS
from quant.backend import Runnable
from quant.calibration.preprocessing_choice import AUTO
from quant.calibration.run_data import RunData
from quant.evaluation.accuracy import evaluate
from quant.evaluation.outputs import OutputReader
from quant.onnx_graph.model import ModelInterface
from quant.progress import Console
from quant.settings.run_settings import RunSettings

FEW, MOST = 32, 128  # images: all candidates are tried on the few, those that are ahead there on the rest
_POINTS = 0.05  # of the images more right: less is not far better
_CHANCE = 0.01  # of a difference as large between equals, by the exact sign test


@dataclass(frozen=True)
class PresetTrial:
    """How many of a few labelled images FP32 answers right, by preprocessing.

    Attributes:
        images: How many images the leading ones were tried on.
        now: The preprocessing that is in force.
        right: Images answered right, by preprocessing, of those tried on all images.
        better: A preprocessing that is far better than the one in force; None where none is.
    """

    images: int
    now: str
    right: Mapping[str, int]
    better: str | None

    @property
    def text(self) -> str:
        """The finding in a sentence; empty where no other is far better."""
        if self.better is None:
            return ""
        return (
            f"FP32 answers {self.right[self.better]} of {self.images} labelled images right with --preprocess "
            f"{self.better}, {self.right[self.now]} with {self.now}, which is in force; nothing was switched"
        )


def told_trial(
    data: RunData,
    settings: RunSettings,
    model: ModelInterface,
    runnable: Runnable,
    reader: OutputReader,
    console: Console,
) -> PresetTrial | None:
    """The trial where nobody said a preprocessing, with a warning where another is far better; None elsewhere."""
    trial = preset_trial(data, settings, model, runnable, reader) if settings.preprocess == AUTO else None
    if trial is not None and trial.text:
        console.warn(trial.text)
    return trial


def preset_trial(
    data: RunData, settings: RunSettings, model: ModelInterface, runnable: Runnable, reader: OutputReader
) -> PresetTrial | None:
    """Try every preset on a few labelled evaluation images; None where that can tell nothing.

    Args:
        data: The images, and the preprocessing that is in force.
        settings: Batch size, seed.
        model: Its input is what a preset must fit.
        runnable: FP32.
        reader: How the outputs answer classes.
    """
    now, labels = data.preprocessing, data.eval_source.labels
    if not isinstance(now, Preprocessing) or reader.scores is None or labels is None or labels.dtype.kind == "f":
        return None
    if not isinstance(data.eval_source, ImageSource):
        return None
    drawn = np.argsort(np.random.PCG64(settings.seed).random_raw(len(data.eval_selection)), kind="stable")
    some = data.eval_selection[drawn[:MOST]]

    def right(preprocessing: Preprocessing, chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
        return answers_right(data, settings, preprocessing, chosen, runnable, reader)

    few = right(now, some[:FEW])
    if few.sum() >= len(few) - 1:
        return None  # no other can be far better
    candidates = _others(now, model)
    ahead = {name: each for name, each in candidates.items() if right(each, some[:FEW]).sum() > few.sum()}
    if not ahead:
        return PresetTrial(len(few), now.name, {now.name: int(few.sum())}, None)
    answers = {name: right(each, some) for name, each in {now.name: now, **ahead}.items()}
    counts = {name: int(answer.sum()) for name, answer in answers.items()}
    best = max(ahead, key=counts.__getitem__)
    better = best if is_far_better(answers[now.name], answers[best]) else None
    return PresetTrial(len(answers[now.name]), now.name, counts, better)


def answers_right(
    data: RunData,
    settings: RunSettings,
    preprocessing: Preprocessing,
    chosen: NDArray[np.int64],
    runnable: Runnable,
    reader: OutputReader,
) -> NDArray[np.bool_]:
    """Which of some labelled evaluation images a model answers right, bool [N], after a bound preprocessing."""
    tolerant = replace(settings, max_bad=1.0)  # unreadable images are counted where all are evaluated
    stream = replace(data, preprocessing=preprocessing, eval_selection=chosen).evaluation_stream(tolerant)
    found = evaluate({"fp32": runnable}, "fp32", stream, lambda images: None, reader=reader)["fp32"].correct
    assert found is not None
    return found


def is_far_better(now: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Does the other answer far more of the same images right, beyond chance?

    Args:
        now: bool [N], image right with what is in force.
        other: bool [N], the same with the other.
    """
    won, lost = int((~now & other).sum()), int((now & ~other).sum())
    flips = won + lost
    if won - lost < _POINTS * len(now):
        return False
    as_large = sum(math.comb(flips, k) for k in range(won, flips + 1))
    return bool(as_large / 2**flips < _CHANCE)


def _others(now: Preprocessing, model: ModelInterface) -> dict[str, Preprocessing]:
    """The presets that fit the model's input and differ from what is in force, by name."""
    info, found = model.inputs[0], {}
    for name, preset in PRESETS.items():
        try:
            bound = replace(preset, size=now.size).bound_to(info.shape, info.dtype)
        except DatasetError:
            continue
        if bound.digest() != now.digest():
            found[name] = bound
    return found
