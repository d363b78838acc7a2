"""Bad models, and models that only look bad: either one line and exit code 1, or they work."""

import json

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image


@pytest.fixture
def failing(calib, finished, snapshot):
    """Runs a command in the finished project, checks that it fails with one line and no harm, and returns the line."""

    def run(*options):
        older = snapshot(finished / "calib-out")
        result = calib("run", "--quiet", *options, cwd=finished)
        assert result.code == 1
        assert snapshot(finished / "calib-out") == older
        return result.error

    return run


def test_no_such_model(failing):
    assert "other.onnx: expected an ONNX model, found nothing; give the file with --model" in failing(
        "--model", "other.onnx"
    )


def test_a_folder_as_model(failing):
    assert "imgs: expected an ONNX model, found a folder" in failing("--model", "imgs")


@pytest.mark.parametrize("contents", [b"this is no model at all", b"", b"\x00" * 300, b"PK\x03\x04 a zip archive"])
def test_a_model_that_is_no_onnx(failing, finished, contents):
    (finished / "model.onnx").write_bytes(contents)
    assert "model.onnx: expected an ONNX model, found a file" in failing()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_model(failing, finished, share):
    model = finished / "model.onnx"
    model.write_bytes(model.read_bytes()[: int(share * model.stat().st_size)])
    error = failing()
    assert "model.onnx: " in error
    assert "export it again" in error or "export the model again" in error


def test_missing_external_data(failing, finished):
    model = onnx.load(finished / "model.onnx")
    onnx.save(model, finished / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (finished / "weights.bin").unlink()
    error = failing()
    assert "model.onnx: expected the external data of " in error
    assert "in 'weights.bin' beside the model, found no such file; copy it there" in error


def test_external_data_in_place_works_and_counts_as_the_model(calib, finished, report):
    model = onnx.load(finished / "model.onnx")
    onnx.save(model, finished / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert calib("run", cwd=finished).code == 0
    assert report(finished)["builds"][0]["top1"] == 100
    first = report(finished)["model"]["sha256"]
    weights = bytearray((finished / "weights.bin").read_bytes())
    weights[3] ^= 1
    (finished / "weights.bin").write_bytes(weights)
    result = calib("run", "--quiet", cwd=finished)
    assert "another model" in result.warnings[0]
    assert report(finished)["model"]["sha256"] != first


def test_an_opset_of_the_future(failing, finished, write_model):
    write_model(finished / "model.onnx", opset=99)
    error = failing()
    assert "model.onnx: expected an opset up to " in error
    assert "found 99; export with an older opset" in error


def test_an_operator_that_nobody_knows(failing, finished, write_model):
    odd = helper.make_node("Frobnicate", ["input"], ["pixels"], domain="com.example")
    write_model(finished / "model.onnx", before=[odd])
    model = onnx.load(finished / "model.onnx")
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, finished / "model.onnx")
    error = failing()
    assert "model.onnx" in error
    assert "Frobnicate" in error


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"channels": 1}, ("input 'input' and --preprocess unit do not fit", "[N, 1, 8, 8]", "color = 'grey'")),
        ({"channels": 5}, ("no axis of the model input [N, 5, 8, 8] fits the 3 channels",)),
        ({"size": "S"}, ("leaves the image size open", "size = [height, width]")),
    ],
)
def test_an_input_that_the_preprocessing_does_not_fit(failing, finished, write_model, changes, parts):
    write_model(finished / "model.onnx", **changes)
    error = failing()
    assert "model.onnx: " in error
    assert all(part in error for part in parts)


def test_another_size_than_the_preprocessing_states(failing, finished):
    (finished / "large.toml").write_text('preset = "unit"\nsize = 32\n')
    error = failing("--preprocess", "large.toml")
    assert "model.onnx: input 'input'" in error
    assert "size [32, 32] is stated, but the model input [N, 3, 8, 8] takes images of height 8 and width 8" in error


def test_an_input_of_another_rank(failing, finished, save_graph):
    node = helper.make_node("Relu", ["input"], ["logits"])
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("input", "logits")]
    graph = helper.make_graph([node], "flat", info[:1], info[1:])
    save_graph(graph, finished / "model.onnx")
    assert "the model input [N, 3] takes no images: expected [N, C, H, W] or [N, H, W, C]" in failing()


@pytest.mark.parametrize("batch", [1, 5, 8, 64])
def test_a_fixed_batch_works_also_with_a_ragged_end(calib, colours, write_model, report, batch):
    write_model(colours / "model.onnx", batch=batch)
    result = calib("run", "--num-images", 22, cwd=colours)  # 22 and 14: no multiple of any of these
    assert result.code == 0, result.err
    found = report(colours)
    assert found["data"]["calibration"]["images"] == 22
    assert found["data"]["evaluation"]["images"] == 14
    assert [build["top1"] for build in found["builds"]] == [100, 100, 100]


@pytest.fixture
def two_inputs(finished, save_graph):
    """A model with the inputs `left` and `right`, and images for it as ready arrays."""

    def write(labels=(0, 1, 2)):
        nodes = [
            helper.make_node("Add", ["left", "right"], ["input"]),
            *onnx.load(finished / "model.onnx").graph.node,
        ]
        graph = onnx.load(finished / "model.onnx").graph
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 8, 8]) for name in ("left", "right")]
        made = helper.make_graph(nodes, "two", inputs, list(graph.output), list(graph.initializer))
        save_graph(made, finished / "model.onnx")
        rows = np.zeros((30, 3, 8, 8), np.float32)
        for i in range(30):
            rows[i, 2 - i % 3] = 0.1 + 0.8 * (i + 1) / 30
        with h5py.File(finished / "pairs.h5", "w") as file:
            file["left"], file["right"] = rows / 2, rows / 2
            file["labels"] = np.array([labels[i % 3] for i in range(30)])
        return finished

    return write


def test_several_inputs_work_from_hdf5_by_name(calib, two_inputs, report):
    project = two_inputs()
    result = calib("run", "--data", "pairs.h5", "--num-images", 20, cwd=project)
    assert result.code == 0, result.err
    found = report(project)
    assert found["data"]["evaluation"] == {"path": "pairs.h5", "images": 10, "labelled": True}
    assert [build["top1"] for build in found["builds"]] == [100, 100, 100]
    assert calib("run", "--data", "pairs.h5", "--num-images", 20, cwd=project).code == 0
    assert report(project)["calibration"]["how"] == "reused"


def test_several_inputs_cannot_come_from_images(failing, two_inputs):
    two_inputs()
    error = failing()
    assert "model.onnx: has 2 inputs (left, right), but images provide only one; give those that are the same" in error


def test_a_pack_that_lacks_an_input(failing, two_inputs):
    project = two_inputs()
    with h5py.File(project / "pairs.h5", "a") as file:
        del file["right"]
    error = failing("--data", "pairs.h5")
    assert "pairs.h5: no dataset for 'right'; the file holds " in error


def test_labels_of_a_pack_outside_the_models_classes_are_told_and_not_used(calib, two_inputs):
    project = two_inputs(labels=(0, 1, 3))
    result = calib("run", "--data", "pairs.h5", "--quiet", cwd=project)
    assert result.code == 0, result.err
    told = next(line for line in result.warnings if "expected labels" in line)
    assert told.startswith("pairs.h5: expected labels 0..2 as the model has 3 classes, found 3")


def test_a_pack_of_another_shape_than_the_input(failing, two_inputs):
    project = two_inputs()
    with h5py.File(project / "pairs.h5", "a") as file:
        rows = file["right"][:, :, :4]
        del file["right"]
        file["right"] = rows
    error = failing("--data", "pairs.h5", "--num-images", 20)
    assert "model.onnx" in error
    assert "right" in error


@pytest.mark.parametrize("infinite", [True, False])
def test_nan_or_infinity_in_an_activation_names_tensor_and_image(calib, finished, write_model, snapshot, infinite):
    # For a pixel of 0, log(0) is minus infinity and 0 / 0 is not a number. No other image has such a pixel.
    node = helper.make_node("Log", ["input"], ["pixels"])
    if not infinite:
        node = helper.make_node("Div", ["input", "input"], ["pixels"])
    write_model(finished / "model.onnx", before=[node])
    Image.new("RGB", (8, 8), (200, 0, 9)).save(finished / "imgs" / "red" / "07.png")
    older = snapshot(finished / "calib-out")
    result = calib("run", "--quiet", "--num-images", 36, cwd=finished)
    assert result.code == 1
    found = "-inf" if infinite else "nan"
    assert f"tensor 'pixels', image 'red/07.png': expected finite activations, found {found}; " in result.error
    assert "preprocessing" in result.error
    assert snapshot(finished / "calib-out") == older


def test_a_tensor_that_is_always_zero_works_and_is_named(calib, colours, write_model, report):
    write_model(
        colours / "model.onnx",
        after=[
            helper.make_node("Mul", ["colours", "zero"], ["nothing"]),
            helper.make_node("Conv", ["nothing", "weight"], ["branch"]),
            helper.make_node("Add", ["colours", "branch"], ["features"]),
        ],
        constants={"zero": np.zeros(1)},
    )
    result = calib("run", "--quiet", cwd=colours)
    assert result.code == 0, result.err
    assert report(colours)["calibration"]["zero_tensors"] == ["nothing", "branch"]
    assert result.warnings[0].startswith("2 tensors were zero for all calibration images, 'nothing' first")
    assert [build["top1"] for build in report(colours)["builds"]] == [100, 100, 100]
    cache = json.loads(calib("cache", "show", "--json", "calib-out/calibration.cache", cwd=colours).out)
    assert all(scale > 0 for scale in cache["scales"].values())


def test_several_models_in_the_folder_are_listed(failing, finished):
    (finished / "calib.toml").write_text('data = "imgs"\npreprocess = "unit"\n')
    (finished / "other.onnx").write_bytes((finished / "model.onnx").read_bytes())
    error = failing()
    assert "model: expected one *.onnx in " in error
    assert "found 2: model.onnx, other.onnx; choose with --model" in error


def test_no_model_in_the_folder(failing, finished):
    (finished / "calib.toml").write_text('data = "imgs"\n')
    (finished / "model.onnx").unlink()
    assert "found none; choose with --model" in failing()


def test_the_only_model_of_a_folder_is_taken(calib, colours, report):
    config = (colours / "calib.toml").read_text()
    (colours / "calib.toml").write_text(config.replace('model = "model.onnx"\n', ""))
    (colours / "model.onnx").rename(colours / "mine.onnx")
    assert calib("run", "--precision", "fp32", cwd=colours).code == 0
    assert report(colours)["model"]["path"] == "mine.onnx"


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize("options", [[], ["--data", "none"]])
def test_a_model_that_is_quantized_already_is_refused_before_any_data_is_read(calib, finished, command, options):
    (finished / "calib-out" / "model.int8.onnx").rename(finished / "model.onnx")
    result = calib(command, "--quiet", *options, cwd=finished)
    assert result.code == 1
    assert result.error == (
        "calib: error: model.onnx: expected an FP32 model, found one that is already quantized; give the FP32 model, "
        "or compare it with calib compare"
    )
