"""Another algorithm that serves a model's outputs better, from the statistics that are there: it costs no pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calib.algorithms import algorithm_from_name, amax_from_statistics
from calib.histograms.statistics import Statistics
from calib.names import ALGORITHMS
from quant.errors import BuildError, ModelError
from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.fidelity import Noise, OutputFidelity, worst_output
from quant.evaluation.outputs import OutputReader
from quant.onnx_graph.model import OnnxModel
from quant.search.simulated_model import SimulatedModel

GOOD_DB = 20.0  # an output with a hundredth of noise in it needs no other algorithm
_BETTER_DB = 3.0  # half the noise: less is no reason to change


@dataclass(frozen=True)
class BetterAlgorithm:
    """An algorithm that leaves less noise in the worst output.

    Attributes:
        algo: Its name, for `--algo`.
        sqnr_db: SQNR of the worst part of the worst output with it, dB.
        now: The algorithm that was used.
        now_db: The same with that one.
        images: On so many images.
    """

    algo: str
    sqnr_db: float
    now: str
    now_db: float
    images: int

    @property
    def text(self) -> str:
        """The finding in a sentence."""
        return (
            f"--algo {self.algo} serves the outputs better: their worst is at {self.sqnr_db:.1f} dB with it, at "
            f"{self.now_db:.1f} dB with {self.now} (on {self.images} images, from the same statistics)"
        )


def better_algorithm(
    model: OnnxModel,
    statistics: Statistics,
    now: str,
    amax: Mapping[str, float],
    batch: EvaluationBatch,
    reader: OutputReader,
    float_nodes: frozenset[str] = frozenset(),
) -> BetterAlgorithm | None:
    """The algorithm with the least noise in the worst output, where it is clearly better than the one in use.

    Args:
        model: FP32 model.
        statistics: Of its activations.
        now: The algorithm in use.
        amax: What it gave, activation units.
        batch: Images to judge by.
        reader: How the outputs are read.
        float_nodes: Products that stay float.
    """
    try:
        simulated = SimulatedModel(model, float_nodes)
        expected = simulated.reference(batch.inputs)
        found = {now: _floor(simulated, expected, amax, batch, reader)}
        for name in ALGORITHMS:
            if name != now:
                other = amax_from_statistics(statistics, algorithm_from_name(name))
                found[name] = _floor(simulated, expected, other, batch, reader)
    except (BuildError, ModelError):
        return None  # the model has no INT8 form that runs, which is said elsewhere
    best = max(found, key=lambda name: found[name])
    if found[best] < found[now] + _BETTER_DB:
        return None
    return BetterAlgorithm(best, found[best], now, found[now], len(batch.names))


def _floor(
    simulated: SimulatedModel,
    expected: Sequence[Any],
    amax: Mapping[str, float],
    batch: EvaluationBatch,
    reader: OutputReader,
) -> float:
    """SQNR of the worst part of the worst output, dB; `expected` are FP32's outputs."""
    outputs = simulated.outputs(batch.inputs, amax)
    fidelities: list[OutputFidelity] = []
    for place in reader.compared:
        layout = reader.layouts[place]
        noise = Noise(layout, whole=reader.scores is not None and place == reader.scores.output)
        noise.add(layout.by_image(outputs[place]), layout.by_image(expected[place]))
        fidelities.append(noise.result())
    worst = worst_output(fidelities)
    return worst.floor_db if worst is not None else 0.0
