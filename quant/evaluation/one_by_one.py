"""Evaluates builds one after the other, for models so large that their sessions are not open at the same time."""

from __future__ import annotations

import pickle
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO

import numpy as np

from quant.backend import Array, Runnable
from quant.errors import QuantError
from quant.evaluation.accuracy import Evaluation, EvaluationBatch, Observe, evaluate
from quant.evaluation.outputs import OutputReader


def evaluate_one_by_one(
    builds: Mapping[str, Runnable],
    baseline: str,
    batches: Callable[[], Iterable[EvaluationBatch]],
    advance: Callable[[int], None] | None = None,
    observe: Observe | None = None,
    *,
    reader: OutputReader,
    deployed: Mapping[str, Runnable],
    after: Callable[[str], None] | None = None,
) -> dict[str, Evaluation]:
    """As `evaluate`, with a pass over the images for each build; the baseline runs in the first one alone.

    Its outputs are kept in a temporary file.

    Args:
        builds: Builds by name.
        baseline: Name of the FP32 build that the others are compared with.
        batches: Opens the images, the same each time.
        advance: Called with the number of images done in a pass.
        observe: See `evaluate`.
        reader: How outputs are read.
        deployed: See `evaluate`.
        after: Called with the name of a build after its pass, while its sessions are still open.
    """
    found: dict[str, Evaluation] = {}
    with tempfile.TemporaryFile(prefix="calib-") as file:
        alone: dict[str, Runnable] = {baseline: _Written(builds[baseline], file)}
        found |= evaluate(alone, baseline, batches(), advance, observe, reader=reader)
        if after is not None:
            after(baseline)
        for name, build in builds.items():
            if name == baseline:
                continue
            file.seek(0)
            pair = {baseline: _Read(file), name: build}
            own = {name: deployed[name]} if name in deployed else {}
            both = evaluate(pair, baseline, batches(), advance, _only(name, observe), reader=reader, deployed=own)
            found[name] = both[name]
            if after is not None:
                after(name)
    return {name: found[name] for name in builds}


class _Written:
    """A build whose outputs are kept in a file."""

    def __init__(self, build: Runnable, file: IO[bytes]) -> None:
        self._build, self._file = build, file

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        outputs = self._build.run(inputs)
        pickle.dump((_checksum(inputs), outputs), self._file, protocol=pickle.HIGHEST_PROTOCOL)
        return outputs


class _Read:
    """The same build in a later pass: its outputs come from the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        try:
            checksum, outputs = pickle.load(self._file)
        except EOFError:
            checksum, outputs = None, []
        if checksum != _checksum(inputs):
            raise QuantError("the images: expected the same in each pass, found others; leave them alone during a run")
        return list(outputs)


def _checksum(inputs: Mapping[str, Array]) -> int:
    value = 0
    for array in inputs.values():
        value = zlib.adler32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, value)
    return value


def _only(name: str, observe: Observe | None) -> Observe | None:
    """An observer of this build alone: the baseline was observed in the first pass."""
    if observe is None:
        return None

    def of_one(found: str, outputs: Sequence[Array], batch: EvaluationBatch, baseline: Sequence[Array]) -> None:
        if found == name:
            observe(found, outputs, batch, baseline)

    return of_one
