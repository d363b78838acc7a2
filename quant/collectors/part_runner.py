"""Runs parts of batches on ONNX Runtime, with a session for each group of tensors and buffers that are reused."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import onnx
from numpy.typing import NDArray

from calib.calibrator import CalibrationBatch
from quant.collectors.blocked_layout import SMALL, blocked_session, is_worth_blocking, optimized_session
from quant.collectors.plan import PART_BYTES, CollectionPlan, division
from quant.errors import BuildError, ModelError
from quant.onnx_graph.light_model import bytes_of_constants
from quant.onnx_graph.model import OnnxModel, with_free_batch
from quant.onnxruntime.resident import bytes_of_session, fits, make_room
from quant.onnxruntime.session import OnnxRuntimeSession

Array = NDArray[Any]
Activations = dict[str, Array]


@dataclass(eq=False)
class Group:
    """Tensors that one session fetches; it is None while it is closed."""

    tensors: Sequence[str]
    open_ragged: Callable[[], OnnxRuntimeSession]
    session: OnnxRuntimeSession | None = None

    def run(
        self, session: OnnxRuntimeSession, inputs: Mapping[str, Array], buffers: Activations, *, full: bool
    ) -> Activations:
        """Activations of a part; those of a full part lie in the buffers and stay there until the next run."""
        if not self.tensors:  # all of them follow from the input
            return {}
        if full and buffers:
            session.run_into(inputs, buffers)
            return buffers
        if not full and session.fixed_batch is not None:
            return self._run_ragged(session, inputs)
        results = dict(zip(self.tensors, session.run_whole(inputs, self.tensors), strict=True))
        if full and session.fixed_shapes:
            buffers.update(results)
        return results

    def _run_ragged(self, session: OnnxRuntimeSession, inputs: Mapping[str, Array]) -> Activations:
        """Run fewer images than the model's fixed batch: free the batch size, or fill up if the graph relies on it.

        Filling up repeats images, and the repeats cannot be cut from a tensor whose first axis is not the batch.
        """
        try:
            results = self.open_ragged().run(inputs, self.tensors)
        except (BuildError, ModelError):
            results = session.run(inputs, self.tensors)
        return dict(zip(self.tensors, results, strict=True))


class PartRunner:
    """Runs parts of batches.

    Attributes:
        groups: The tensors to fetch, each group by its own session.
        at_work: Parts that are run at a time; `divide` may make them fewer.
        part: Images of a part; set by `divide`.
        bytes_of_image: Of the activations that are fetched; set by `divide`.
    """

    def __init__(self, model: OnnxModel, *, threads: int, at_work: int, part_bytes: int = PART_BYTES) -> None:
        """Keep the settings; no session is opened yet.

        Args:
            model: FP32 model.
            threads: ONNX Runtime's threads for one run.
            at_work: Parts that are run at a time; each has its own buffers.
            part_bytes: Bytes of activations that a part should have.
        """
        self._model, self._threads, self.at_work, self._part_bytes = model, threads, at_work, part_bytes
        self.groups: list[Group] = []
        self._lock = threading.Lock()  # of the sessions
        self.part = self.bytes_of_image = 0
        self._buffers: SimpleQueue[Activations] = SimpleQueue()  # a set for each part at work
        for _ in range(at_work):
            self._buffers.put({})
        self._first: Activations | None = None  # activations of the first image, if they are a whole part
        self._optimized: onnx.ModelProto | None = None  # what ONNX Runtime made of the model, until it is divided

    def types(self, tensors: Sequence[str]) -> Mapping[str, str]:
        """ONNX Runtime's types of these tensors."""
        return self._session(tensors).types

    def open(self, tensors: Sequence[str]) -> None:
        """Open the session that fetches these tensors."""
        self.groups = [self._group(tensors)]
        if self._may_be_blocked():
            make_room(bytes_of_session(self._model.light.values))
            with contextlib.suppress(BuildError, OSError):  # the usual session says what is wrong, if anything is
                self.groups[0].session, self._optimized = optimized_session(
                    self._model.light, str(self._model.path), tensors, self._threads
                )
        self._opened(self.groups[0])

    def _may_be_blocked(self) -> bool:
        """Whether what ONNX Runtime makes of the model is kept before anybody knows whether it will be needed."""
        graph = self._model.graph
        return any(node.op_type == "Conv" for node in graph.graph.node) and bytes_of_constants(graph) <= SMALL

    def _group(self, tensors: Sequence[str]) -> Group:
        return Group(tensors, lambda: self._session(tensors, free_batch=True))

    def _opened(self, group: Group) -> OnnxRuntimeSession:
        """The session of a group; those of other groups are closed where they do not fit into memory together."""
        with self._lock:
            if group.session is None:
                if not fits(bytes_of_session(self._model.light.values) * len(self.groups)):
                    for other in self.groups:
                        other.session = None
                group.session = self._session(group.tensors)
            return group.session

    def _session(self, tensors: Sequence[str], *, free_batch: bool = False) -> OnnxRuntimeSession:
        """The model with these tensors as outputs."""
        model = with_free_batch(self._model.light) if free_batch else self._model.light
        make_room(bytes_of_session(model.values))
        try:
            return OnnxRuntimeSession(
                model, name=str(self._model.path), threads=self._threads, spin=False, also=tensors
            )
        except BuildError as error:
            raise ModelError(str(error)) from error

    def divide(self, plan: CollectionPlan, batch: CalibrationBatch, images: int, memory_limit: int) -> None:
        """Decide, from the first image, how many images are run at a time and whether tensors are fetched in groups.

        Args:
            plan: What is fetched.
            batch: The first batch.
            images: Approximate number of images to come.
            memory_limit: Bytes of activations that may be held at a time.
        """
        session = self._opened(self.groups[0])
        fixed = session.fixed_batch
        image = {name: array[:1] if array.ndim else array for name, array in batch.inputs.items()}
        names = list(plan.fetched)
        one = dict(zip(names, session.run(image, names), strict=True)) if names else {}
        self.bytes_of_image = sum(array.nbytes for array in one.values())
        sizes = {name: array.nbytes * (fixed or 1) for name, array in one.items()}
        self._fewer_at_work(memory_limit // max(1, sum(sizes.values())))
        divided = division(sizes, memory_limit // self.at_work, len(batch.names), fixed, self._part_bytes)
        self.part = divided.images
        if not names:
            return
        if len(divided.groups) > 1:
            self.groups = [self._group(tensors) for tensors in divided.groups]
        elif self.part == 1 and not plan.first_batch:
            self._first = one
            self._buffers.get()  # `one` takes its place once it is counted
        optimized, self._optimized = self._optimized, None
        if fixed is None and is_worth_blocking(self._model.graph, one, images):
            self._block(image, one, optimized if len(self.groups) == 1 else None)

    def _fewer_at_work(self, most: int) -> None:
        """Run at most so many parts at a time, at least one, with the threads of those that are not run."""
        fewer = max(1, min(self.at_work, most))
        if fewer == self.at_work:
            return
        self._threads = max(1, self._threads * self.at_work // fewer)
        while self.at_work > fewer:
            self._buffers.get()
            self.at_work -= 1
        for group in self.groups:
            group.session = None  # opened again with more threads

    def _block(self, image: Mapping[str, Array], one: Activations, optimized: onnx.ModelProto | None) -> None:
        """Switch to sessions that give activations as convolutions write them, if they give the same values."""
        for group in self.groups:
            expected = {name: one[name] for name in group.tensors}
            faster = blocked_session(
                self._model.light, str(self._model.path), image, expected, self._threads, optimized
            )
            group.session = faster or self._opened(group)

    def take_first(self) -> Activations | None:
        """Return the activations of the first image, once, if they are a whole part."""
        first, self._first = self._first, None
        return first

    def close(self) -> None:
        """Release the sessions; otherwise they and the buffers would wait for Python's cyclic garbage collector."""
        self.groups = []

    @contextlib.contextmanager
    def activations(
        self, group: Group, inputs: Mapping[str, Array], images: int, ready: Activations | None = None
    ) -> Iterator[Activations]:
        """The activations of a part, valid within the `with` block; their memory is reused after it.

        Args:
            group: The tensors to fetch.
            inputs: Inputs of the part's images.
            images: Number of the part's images.
            ready: The activations, if they are already known.
        """
        buffers = self._buffers.get() if ready is None else ready
        try:
            yield ready or group.run(self._opened(group), inputs, buffers, full=images == self.part)
        finally:
            self._buffers.put({} if len(self.groups) > 1 else buffers)
