"""`quant.compare`: engines that it loads are freed, those that it is given stay usable."""

import pytest

import quant
from datasets import DatasetError
from quant import QuantError, compared, model_comparison
from quant.backend import OnnxRuntimeBackend
from quant.engine_model import EngineModel
from quant.onnxruntime_backend import OnnxRuntimeSession
from quant.tensorrt_engine import EngineTensor


class Engine:
    """What a comparison needs of an engine, run by ONNX Runtime: TensorRT needs a GPU."""

    smallest = largest = 32

    def __init__(self, model):
        self.closed = False
        self._session = OnnxRuntimeSession(model.proto)
        self.inputs, self.outputs = (
            tuple(EngineTensor(info.name, (32, *info.shape[1:]), info.dtype, is_input, True) for info in infos)
            for infos, is_input in ((model.inputs, True), (model.outputs, False))
        )

    def run(self, inputs):
        assert not self.closed
        return self._session.run(inputs)

    def close(self):
        self.closed = True


@pytest.fixture
def engine_of(demo):
    """An engine of the sample's model."""
    model = quant.load_model(demo / "model.onnx")
    return lambda path=demo / "given.engine": EngineModel(path, model.sha256, "fp32", Engine(model), 1, {})


@pytest.fixture
def loaded(engine_of, monkeypatch):
    """The engines that were loaded so far; files need not be there."""
    engines = []

    def load(path):
        engines.append(engine_of(path))
        return engines[-1]

    monkeypatch.setattr(compared, "load_engine", load)
    monkeypatch.setattr(model_comparison, "backend_by_name", lambda settings, console: OnnxRuntimeBackend())
    return engines


@pytest.fixture
def preprocess(demo):
    return str(demo / "preprocess.toml")


def test_engines_that_were_given_as_paths_are_freed_after_the_comparison(loaded, demo, preprocess, tmp_path):
    document = quant.compare("a.engine", "b.engine", demo / "imgs", preprocess=preprocess, out=tmp_path / "out")
    assert document["builds"][1]["agreement"] == 100
    assert [str(model.path) for model in loaded] == ["a.engine", "b.engine"]
    assert all(model.engine.closed for model in loaded)


def test_an_engine_that_was_given_itself_stays_usable(loaded, engine_of, demo, preprocess):
    given = engine_of()
    quant.compare(given, "b.engine", demo / "imgs", preprocess=preprocess)
    quant.compare("a.engine", given, demo / "imgs", preprocess=preprocess)
    assert not given.engine.closed
    assert all(model.engine.closed for model in loaded)


def test_an_engine_is_freed_where_the_images_cannot_be_used(loaded, demo):
    with pytest.raises(DatasetError):
        quant.compare("a.engine", "b.engine", demo / "nowhere")
    assert [model.engine.closed for model in loaded] == [True]


def test_engines_are_freed_where_they_cannot_be_compared(loaded, engine_of, demo, preprocess):
    given = engine_of()
    given.engine.outputs *= 2
    with pytest.raises(QuantError, match="expected 1 outputs"):
        quant.compare("a.engine", given, demo / "imgs", preprocess=preprocess)
    assert [model.engine.closed for model in loaded] == [True]
    assert not given.engine.closed
