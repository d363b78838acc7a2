"""ONNX Runtime's builds in child processes, as those of TensorRT are made: the whole mechanism, without a GPU."""

from quant.errors import BuildError
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.settings.batch_range import BatchRange
from quant.tensorrt.builds_ahead import BuildsAhead
from quant.tensorrt.engine_build import EngineOrder
from tests.child_work import Behaviour, ChildWork, contents, nothing


class OnnxRuntimeAhead(OnnxRuntimeBackend):
    """A back end whose builds go ahead in children.

    Attributes:
        loaded: Precisions that were taken from a child, in order.
        alone: Precisions that were built in this process, in order.
        notes: What was said.
    """

    def __init__(self, folder, behaviour=Behaviour()):  # noqa: B008 - it is frozen
        super().__init__()
        self.folder, self.behaviour = folder, behaviour
        self.loaded, self.alone, self.notes = [], [], []

    def ahead(self):
        return BuildsAhead(self, self.folder, self.notes.append)

    def ordered(self, model, precision, cache, float_nodes):
        return model, EngineOrder(precision, BatchRange(1, 1, 1), cache=cache, float_nodes=float_nodes)

    def stored(self, model, order):
        return None

    def times_builds(self, precision):
        return False

    def prepare_child(self):
        return nothing

    def child_work(self, model, order):
        return ChildWork(model.path.resolve(), order.precision, order.cache, order.float_nodes, self.behaviour)

    def from_child(self, folder, model, order):
        build = super().build(model, order.precision, order.cache, order.float_nodes)
        if (folder / "built").read_bytes() != contents(build):
            raise BuildError("expected the build of this process, found another")
        self.loaded.append(order.precision)
        return build

    def build(self, model, precision, cache=None, float_nodes=frozenset()):
        self.alone.append(precision)
        return super().build(model, precision, cache, float_nodes)
