"""Data from Python: what `build`, `compare`, `run` and the calibrators take, and what they say of the rest."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import quant
from calib import EntropyCalibrator, MinMaxCalibrator
from datasets import DatasetError, Preprocessing
from quant import RunSettings
from quant.calibration.run_data import source_from_python
from tests.outcome import Notes

COLOURS = ((20, 30, 200), (30, 190, 20), (210, 20, 30))  # blue, green, red: the classes of the colour classifier


@pytest.fixture(scope="module")
def images():
    """30 images of one colour each with noise, uint8 [8, 8, 3], and their classes."""
    generator = np.random.default_rng(7)
    noise = generator.integers(-15, 16, (30, 8, 8, 3))
    pixels = [np.clip(np.array(COLOURS[i % 3]) + noise[i], 0, 255).astype(np.uint8) for i in range(30)]
    return pixels, [i % 3 for i in range(30)]


@pytest.fixture(scope="module")
def samples(images):
    """The same as the model's inputs, float32 [3, 8, 8]."""
    unit = Preprocessing.preset("unit").bound_to(["N", 3, 8, 8], "float32")
    return [unit(image) for image in images[0]]


@pytest.fixture
def model(tmp_path, write_model):
    return write_model(tmp_path / "model.onnx")


@pytest.fixture
def expected(model, images, tmp_path):
    """What the same images give from a folder."""
    (tmp_path / "imgs").mkdir()
    for i, pixels in enumerate(images[0]):
        Image.fromarray(pixels).save(tmp_path / "imgs" / f"{i:02}.png")
    return quant.build(model, tmp_path / "imgs", MinMaxCalibrator(), preprocess="unit").amax


class MapStyle:
    """As torch.utils.data.Dataset: by index, with a length, and no end of its own."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index], 0


def in_batches(samples, size=8):
    return [np.stack(samples[i : i + size]) for i in range(0, len(samples), size)]


FORMS = {
    "list of images": lambda images, samples: list(images),
    "array of images": lambda images, samples: np.stack(images),
    "generator of images": lambda images, samples: iter(list(images)),
    "list of samples": lambda images, samples: list(samples),
    "array of samples": lambda images, samples: np.stack(samples),
    "list of batches": lambda images, samples: in_batches(samples),
    "doubles": lambda images, samples: [sample.astype(np.float64) for sample in samples],
    "generator of samples": lambda images, samples: (sample for sample in samples),
    "generator of batches": lambda images, samples: (batch for batch in in_batches(samples)),
    "dicts": lambda images, samples: [{"input": sample, "label": 1} for sample in samples],
    "one dict": lambda images, samples: {"input": np.stack(samples)},
    "dicts of batches": lambda images, samples: ({"input": b, "y": np.zeros(len(b), int)} for b in in_batches(samples)),
    "pairs": lambda images, samples: [(sample, 1) for sample in samples],
    "pairs of batches": lambda images, samples: [[batch, np.ones(len(batch), int)] for batch in in_batches(samples)],
    "dict and label": lambda images, samples: [({"input": sample}, 2) for sample in samples],
    "map style": lambda images, samples: MapStyle(samples),
    "Pillow's images": lambda images, samples: [Image.fromarray(image) for image in images],
}


@pytest.mark.parametrize("form", FORMS)
def test_build_takes_every_form(model, images, samples, expected, form):
    int8 = quant.build(model, FORMS[form](images[0], samples), MinMaxCalibrator(), preprocess="unit")
    assert int8.amax == expected
    assert len(int8.calibrated) == len(int8.images) == 30
    assert len({image.sha256 for image in int8.images}) == 30


@pytest.mark.parametrize("form", ["generator of samples", "pairs of batches", "dicts", "array of samples"])
def test_calibrators_take_every_form_of_inputs(model, images, samples, expected, form):
    calibrator = MinMaxCalibrator(FORMS[form](images[0], samples))
    quant.collect_statistics(quant.load_model(model), calibrator)
    assert calibrator.statistics.images == 30
    assert calibrator.compute_amax() == expected


def test_torch_tensors_and_loaders(model, samples, expected):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(np.stack(samples)), torch.arange(30) % 3)
    loader = torch.utils.data.DataLoader(data, batch_size=7)
    assert quant.build(model, loader, MinMaxCalibrator()).amax == expected
    calibrator = MinMaxCalibrator(loader)
    quant.collect_statistics(quant.load_model(model), calibrator)
    assert calibrator.compute_amax() == expected
    assert quant.build(model, data, MinMaxCalibrator()).amax == expected  # a data set, without a loader
    grown = torch.tensor(np.stack(samples), requires_grad=True) * 1
    assert quant.build(model, grown, MinMaxCalibrator()).amax == expected
    source = source_from_python(loader, quant.load_model(model).inputs, RunSettings())
    assert source.labels.tolist() == [i % 3 for i in range(30)]
    with pytest.raises(TypeError, match=r"item 0: .* that is no array: .*BFloat16"):
        quant.build(model, [torch.zeros(3, 8, 8, dtype=torch.bfloat16)])


def test_a_list_of_paths(model, images, tmp_path, expected):
    paths = sorted((tmp_path / "imgs").glob("*.png"))
    for given in (paths, [str(path) for path in paths], iter(paths)):
        assert quant.build(model, given, MinMaxCalibrator(), preprocess="unit").amax == expected
    chosen = [tmp_path / "imgs/07.png", tmp_path / "imgs/02.png"]
    int8 = quant.build(model, chosen, MinMaxCalibrator(), preprocess="unit", sampling="first")
    assert [image.name for image in int8.images] == ["07.png", "02.png"]
    with pytest.raises(DatasetError, match="expected each path once, found 2 paths of 1 images"):
        quant.build(model, [paths[0], paths[0]])
    with pytest.raises(TypeError, match="expected paths of images alone, found ndarray among them"):
        quant.build(model, [paths[0], np.zeros((8, 8, 3), np.uint8)])


@pytest.mark.parametrize("batched", [False, True])
def test_an_array_that_is_filled_again_and_again_is_copied(model, samples, expected, batched):
    """As a camera's driver does it, or a loader that keeps one buffer."""

    def refilled():
        buffer = np.empty((6, 3, 8, 8) if batched else (3, 8, 8), np.float32)
        for i in range(0, 30, 6 if batched else 1):
            buffer[...] = samples[i : i + 6] if batched else samples[i]
            yield buffer

    assert quant.build(model, refilled(), MinMaxCalibrator()).amax == expected
    calibrator = MinMaxCalibrator(refilled())
    quant.collect_statistics(quant.load_model(model), calibrator)
    assert calibrator.compute_amax() == expected
    source = source_from_python(refilled(), quant.load_model(model).inputs, RunSettings())
    assert np.array_equal(source.load(0)["input"], samples[0])


def test_only_as_many_samples_as_are_asked_for_are_taken(model, samples):
    taken = []

    def endless():
        for i in range(10**9):
            taken.append(i)
            yield samples[i % 30]

    int8 = quant.build(model, endless(), MinMaxCalibrator(), num_images=12, batch_size=5)
    assert len(int8.images) == 12
    assert len(taken) <= 13
    whole = quant.build(model, (batch for batch in in_batches(samples)), MinMaxCalibrator(), num_images=12)
    assert whole.amax == int8.amax


def test_images_of_a_stream_are_preprocessed_like_those_of_a_folder(model, images, expected):
    generator = np.random.default_rng(0)
    large = [np.asarray(Image.fromarray(image).resize((20, 30), Image.Resampling.NEAREST)) for image in images[0]]
    int8 = quant.build(model, (image for image in large), MinMaxCalibrator(), preprocess="unit")
    assert int8.amax["input"] == pytest.approx(expected["input"], abs=0.1)
    deep = [image.astype(np.uint16) * 257 for image in images[0]]
    assert quant.build(model, deep, MinMaxCalibrator(), preprocess="unit").amax == pytest.approx(expected, rel=1e-6)
    with pytest.raises(TypeError, match="expected the model's inputs as before, found an image"):
        quant.build(model, iter([np.zeros((3, 8, 8), np.float32), generator.integers(0, 9, (8, 8, 3), np.uint8)]))


def test_compare_leaves_out_what_a_stream_calibrated_on(model, images, samples):
    pairs = list(zip(samples, images[1], strict=True))
    int8 = quant.build(model, iter(pairs[:20]), MinMaxCalibrator())
    for given in (pairs, iter(pairs), ((sample, label) for sample, label in pairs)):
        found = quant.compare(model, int8, given)
        assert found["data"]["evaluation"] == {**found["data"]["evaluation"], "images": 10, "labelled": True}
        assert found["builds"][0]["top1"] == 100
    few = quant.compare(model, int8, images[0][:4], preprocess="unit")
    assert few["data"]["evaluation"]["images"] == 4  # images are other contents than the inputs made of them


def test_what_is_needed_several_times_is_kept_within_a_limit(model, samples):
    int8 = quant.build(model, samples, MinMaxCalibrator())
    large = (np.zeros((3, 8, 8), np.float32) for _ in range(3000))  # 2.3 MB
    with pytest.raises(DatasetError) as caught:
        quant.compare(model, int8, large, memory_limit=1)
    assert str(caught.value) == (
        "generator: gives more than 1 MB, and samples are needed several times; give a folder, a list of paths, or a "
        "source with samples by index (docs/python.md)"
    )


def test_run_takes_data_from_python(model, images, samples, tmp_path):
    pairs = list(zip(samples, images[1], strict=True))
    settings = RunSettings(model=model, num_images=12, algo="minmax", out=tmp_path / "out", backend="onnxruntime")
    console = Notes()
    found = quant.run(settings, console, data=iter(pairs))
    assert (found["data"]["calibration"]["images"], found["data"]["evaluation"]["images"]) == (12, 18)
    assert found["data"]["calibration"]["path"] == "list_iterator"
    assert (found["verdict"], found["builds"][0]["top1"]) == ("pass", 100)
    assert any("preprocessing: none" in line for line in console.notes)
    again = quant.run(settings, data=pairs[:12], evaluation=pairs[12:])
    assert (again["data"]["evaluation"]["images"], again["builds"][0]["top1"]) == (18, 100)
    assert again.get("command") is None


def test_several_inputs_come_as_dicts_or_in_order(tmp_path, write_model, samples):
    graph = onnx.load(write_model(tmp_path / "two.onnx"))
    graph.graph.node[-1].output[0] = "plain"
    graph.graph.node.append(helper.make_node("Mul", ["plain", "factor"], ["logits"]))
    graph.graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, ["N", 1]))
    onnx.save(graph, tmp_path / "two.onnx")
    one = np.ones(1, np.float32)
    forms = [
        [{"input": sample, "factor": one} for sample in samples],
        [(sample, one) for sample in samples],
        [(sample, one, 2) for sample in samples],
        [((sample, one), 2) for sample in samples],
    ]
    found = [quant.build(tmp_path / "two.onnx", form, MinMaxCalibrator()).amax for form in forms]
    assert all(amax == found[0] for amax in found)
    with pytest.raises(TypeError, match=r"item 0: .*'factor' \[N, 1\] float32 .* found ndarray alone, for 2 inputs"):
        quant.build(tmp_path / "two.onnx", samples)


class Own:
    """A source of one's own, as docs/python.md shows it."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.path, self.labels, self.class_names = "my camera", None, None
        self.names = tuple(f"frame {i}" for i in range(len(pixels)))

    def __len__(self):
        return len(self.pixels)

    def read(self, index):
        return self.pixels[index]

    def content(self, index):
        return self.pixels[index].tobytes()

    def fingerprint(self, index):
        return str(hash(self.content(index)))


def test_a_source_of_ones_own(model, images, expected):
    source = Own(images[0])
    int8 = quant.build(model, source, MinMaxCalibrator(), preprocess="unit")
    assert int8.amax == expected
    assert int8.images[0].name.startswith("frame ")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, r"data: expected a folder or pack, a list of paths, a DataLoader .*\(docs/python\.md\), found int"),
        (object(), "found object"),
        (type("Near", (Own,), {"read": property()})([]), r"found Near \(as a source of its own it lacks read\)"),
        (["a", 1], "expected paths of images alone, found int among them"),
        ([3], r"item 0: expected 'input' \[N, 3, 8, 8\] float32 as an array or tensor, .*; found int"),
        ([np.zeros((4, 8, 8), np.float32)], r"item 0: .*; or uint8 images \[H, W, C\]; found \[4, 8, 8\] float32"),
        ([np.zeros((8, 8), np.int64)], r"found \[8, 8\] int64"),
        ([np.array(["a"])], "found an array of <U1"),
        ([{"x": np.zeros((3, 8, 8), np.float32)}], "found dict with the keys 'x', without 'input'"),
        ([(1, 2, 3, 4)], "found tuple of 4"),
        ([None], "found NoneType"),
        ([b"bytes"], "found bytes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_says_what_does(model, given, said):
    with pytest.raises(TypeError, match=said) as caught:
        quant.build(model, given)
    assert isinstance(caught.value, DatasetError)
    assert "\n" not in str(caught.value)


def test_the_item_that_does_not_fit_is_named(model, samples):
    with pytest.raises(TypeError, match=r"item 3: .* found \[3, 8, 9\] float32"):
        quant.build(model, iter([*samples[:3], np.zeros((3, 8, 9), np.float32)]))
    with pytest.raises(
        TypeError, match="item 0: images need preprocessing, and a calibrator's batches are the model's"
    ):
        quant.collect_statistics(quant.load_model(model), EntropyCalibrator([np.zeros((8, 8, 3), np.uint8)]))


def test_nothing_at_all_is_told(model, samples):
    used = iter(samples)
    quant.build(model, used, MinMaxCalibrator())
    for given in (used, [], np.zeros((0, 3, 8, 8), np.float32)):
        with pytest.raises(DatasetError, match=r"gives no samples; expected at least one|item 0: expected"):
            quant.build(model, given)


def test_errors_of_a_generator_are_its_own(model, samples):
    def broken():
        yield samples[0]
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        quant.build(model, broken())


def test_labels_that_are_no_numbers_are_left_out(model, samples):
    inputs = quant.load_model(model).inputs
    for label in ("cat", [1, 2], {"boxes": []}, None):
        source = source_from_python([(sample, label) for sample in samples[:2]], inputs, RunSettings())
        assert source.labels is None
    assert source_from_python([(samples[0], 2.5)], inputs, RunSettings()).labels.tolist() == [2.5]


@pytest.fixture
def scaled_model(tmp_path, write_model):
    """The colour classifier with free height and width, whose logits a second input multiplies, `factor` [N, 1]."""
    proto = onnx.load(write_model(tmp_path / "scaled.onnx", size="S"))
    proto.graph.node[-1].output[0] = "plain"
    proto.graph.node.append(helper.make_node("Mul", ["plain", "factor"], ["logits"], name="times"))
    proto.graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, ["N", 1]))
    onnx.save(proto, tmp_path / "scaled.onnx")
    return tmp_path / "scaled.onnx"


@pytest.mark.parametrize("constant", [{"factor": np.float32([2.5])}, ["factor=[2.5]"]], ids=["mapping", "texts"])
def test_build_and_compare_take_constants_and_the_size_as_run_does(scaled_model, images, constant, tmp_path):
    (tmp_path / "imgs").mkdir()
    for i, pixels in enumerate(images[0]):
        Image.fromarray(pixels).save(tmp_path / "imgs" / f"{i:02}.png")
    given = {"preprocess": "unit", "input_size": "4x4", "input": constant}
    for data in (tmp_path / "imgs", images[0], iter(images[0])):
        int8 = quant.build(scaled_model, data, MinMaxCalibrator(), **given)
    assert {"flat", "input"} <= int8.amax.keys()
    found = quant.compare(scaled_model, int8, list(zip(*images, strict=True)), **given)
    assert found["builds"][0]["top1"] == 100
    assert found["preprocessing"]["size"] == [4, 4]
    assert found["settings"]["input"] == ["factor=[2.5]"]
    assert found._repr_html_().startswith("<iframe")  # a notebook shows it as the page


def test_what_is_wrong_with_a_constant_or_a_size_is_said(scaled_model, images):
    with pytest.raises(TypeError, match=r"found ndarray alone, for 2 inputs"):
        quant.build(scaled_model, images[0], preprocess="unit", input_size="8x8")
    with pytest.raises(quant.QuantError, match=r"'factor' takes .* found"):
        quant.build(scaled_model, images[0], preprocess="unit", input_size="8x8", input={"factor": [1, 2]})
    with pytest.raises(quant.QuantError, match="input_size: expected HEIGHTxWIDTH"):
        quant.compare(scaled_model, scaled_model, images[0], input_size="8")
