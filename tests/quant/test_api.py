"""`quant.build` and `quant.compare`: records are correct for any input, and engines are freed by their owner."""

import shutil

import numpy as np
import pytest

import quant
from calib import CalibrationError, EntropyCalibrator, MinMaxCalibrator
from datasets import BatchStream, DatasetError, ImageFolder
from quant import QuantError
from quant.jobs import compare as model_comparison
from quant.jobs import compare_sides as compared
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.tensorrt.engines.engine_model import EngineModel
from quant.tensorrt.engines.loaded_engine import EngineTensor


class Engine:
    """The parts of an engine that a comparison needs, run by ONNX Runtime because TensorRT needs a GPU."""

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
def sample(demo_master, tmp_path):
    """The embedded sample with 16 images of each class, to change at will."""
    folder = tmp_path / "sample"
    for images in sorted((demo_master / "imgs").iterdir()):
        (folder / "imgs" / images.name).mkdir(parents=True)
        for path in sorted(images.iterdir())[:16]:
            shutil.copy(path, folder / "imgs" / images.name)
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(demo_master / name, folder)
    return folder


@pytest.fixture
def engine_of(sample):
    """An engine of the sample's model."""
    model = quant.load_model(sample / "model.onnx")
    return lambda path=sample / "given.engine": EngineModel(path, model.sha256, "fp32", Engine(model), 1, {})


@pytest.fixture
def loaded(engine_of, monkeypatch):
    """The engines that were loaded so far; their files need not exist."""
    engines = []

    def load(path):
        engines.append(engine_of(path))
        return engines[-1]

    monkeypatch.setattr(compared, "load_engine", load)
    monkeypatch.setattr(model_comparison, "backend_by_name", lambda settings, console, shapes: OnnxRuntimeBackend())
    return engines


@pytest.fixture
def preprocess(sample):
    return str(sample / "preprocess.toml")


def test_engines_that_were_given_as_paths_are_freed_after_the_comparison(loaded, sample, preprocess, tmp_path):
    document = quant.compare("a.engine", "b.engine", sample / "imgs", preprocess=preprocess, out=tmp_path / "out")
    assert document["builds"][1]["agreement"] == 100
    assert [str(model.path) for model in loaded] == ["a.engine", "b.engine"]
    assert all(model.engine.closed for model in loaded)


def test_an_engine_that_was_given_itself_stays_usable(loaded, engine_of, sample, preprocess):
    given = engine_of()
    quant.compare(given, "b.engine", sample / "imgs", preprocess=preprocess)
    quant.compare("a.engine", given, sample / "imgs", preprocess=preprocess)
    assert not given.engine.closed
    assert all(model.engine.closed for model in loaded)


def test_an_engine_is_freed_where_the_images_cannot_be_used(loaded, sample):
    with pytest.raises(DatasetError):
        quant.compare("a.engine", "b.engine", sample / "nowhere")
    assert [model.engine.closed for model in loaded] == [True]


def test_engines_are_freed_where_they_cannot_be_compared(loaded, engine_of, sample, preprocess):
    given = engine_of()
    given.engine.outputs *= 2
    with pytest.raises(QuantError, match="expected 1 outputs"):
        quant.compare("a.engine", given, sample / "imgs", preprocess=preprocess)
    assert [model.engine.closed for model in loaded] == [True]
    assert not given.engine.closed


@pytest.fixture
def few(sample, tmp_path):
    """Eight images of each class in a folder of their own."""
    for folder in sorted((sample / "imgs").iterdir()):
        (tmp_path / "few" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:8]:
            shutil.copy(path, tmp_path / "few" / folder.name)
    return tmp_path / "few"


@pytest.fixture
def built(sample, preprocess):
    """Builds from 40 images of the sample."""
    return lambda images=sample / "imgs", calibrator=None, **options: quant.build(
        sample / "model.onnx", images, calibrator, preprocess=preprocess, **{"num_images": 40, **options}
    )


def evaluated(document):
    return document["data"]["evaluation"]["images"]


def test_a_calibrator_starts_anew_with_each_build(built, sample):
    """What it held before, of these images or of others, counts no more; a second build is as good as a first one."""
    calibrator = MinMaxCalibrator()
    calibrator.collect({"another": np.ones(3)}, 7)
    first = built(calibrator=calibrator)
    assert calibrator.statistics.images == 40
    assert "another" not in calibrator.statistics.histograms
    again = built(calibrator=calibrator, seed=1)
    assert calibrator.statistics.images == 40
    assert again.amax == built(seed=1, calibrator=MinMaxCalibrator()).amax != first.amax


def test_the_second_folder_is_read_and_recorded(built, sample, few, preprocess):
    calibrator = EntropyCalibrator()
    built(calibrator=calibrator)
    second = built(few, calibrator)
    assert second.source.path == few
    assert [second.source.names[i] for i in second.calibrated] == [image.name for image in second.images]
    assert len(second.calibrated) == calibrator.statistics.images == 40
    assert evaluated(quant.compare(sample / "model.onnx", second, few, preprocess=preprocess)) == 80 - 40


def test_a_calibrator_with_batches_of_its_own_is_refused(built, sample):
    calibrator = MinMaxCalibrator(BatchStream(ImageFolder(sample / "imgs"), input_name="input"))
    with pytest.raises(QuantError, match=r"calibrator: expected one without batches.*leave out `batches`") as caught:
        built(calibrator=calibrator)
    assert isinstance(caught.value, CalibrationError)
    assert calibrator.statistics.images == 0


def test_images_that_cannot_be_read_are_not_among_the_calibrated(built, sample):
    names = sorted((sample / "imgs" / "0").iterdir())
    names[0].write_bytes(b"no image")
    model = built(sampling="first", max_bad=0.1)
    assert names[0].name not in {image.name.split("/")[-1] for image in model.images}
    assert len(model.calibrated) == len(model.images) == 39


@pytest.mark.parametrize("spelled", ["absolute", "relative", "other name", "one image gone", "renamed images"])
def test_calibrated_images_are_left_out_however_the_folder_is_spelled(built, sample, preprocess, spelled, monkeypatch):
    monkeypatch.chdir(sample)
    model, images, gone = built("imgs"), "imgs", 0
    if spelled == "absolute":
        images = sample / "imgs"
    elif spelled == "other name":
        images = shutil.copytree("imgs", "copy")
    elif spelled == "one image gone":
        kept = next(i for i in range(len(model.source)) if i not in set(model.calibrated.tolist()))
        (sample / "imgs" / model.source.names[kept]).unlink()
        gone = 1
    elif spelled == "renamed images":
        for number, path in enumerate(sorted((sample / "imgs").rglob("*.png"), reverse=True)):
            path.rename(path.with_name(f"{number:05}.png"))
    document = quant.compare("model.onnx", model, images, preprocess=preprocess)
    assert evaluated(document) == len(model.source) - 40 - gone
    assert document["warnings"] == []


def test_where_all_images_calibrated_all_are_compared_and_the_report_says_so(built, sample, few, preprocess):
    model = built(few, num_images=512)
    document = quant.compare(sample / "model.onnx", model, few, preprocess=preprocess)
    assert evaluated(document) == 80
    assert document["warnings"] == [
        f"{few}: all 80 images were used for calibration, so the measured drop may be too small; give other images"
    ]
