import onnx
import pytest

from calib.errors import CalibrationError
from calib.sample_project import write_sample_project
from datasets import ImageFolder, Preprocessing
from quant.settings.calib_toml import settings_from_options


def test_the_project_holds_images_model_and_settings_that_fit(tmp_path):
    folder = tmp_path / "new" / "demo"
    images = write_sample_project(folder)
    settings = settings_from_options({}, folder)
    assert settings.model == folder / "model.onnx"
    source = ImageFolder(settings.data)
    assert len(source) == images == 899
    assert source.class_names == tuple("0123456789")
    (value,) = onnx.load(settings.model).graph.input
    shape = tuple(dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim)
    preprocessing = Preprocessing.from_spec(settings.preprocess).bound_to(shape, "float32")
    assert preprocessing.to_dict()["color"] == "grey"
    assert sorted(path.name for path in folder.iterdir()) == ["calib.toml", "imgs", "model.onnx", "preprocess.toml"]


def test_an_empty_folder_is_filled(tmp_path):
    assert write_sample_project(tmp_path) == 899


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(CalibrationError, match="expected a new or empty folder, found files in it"):
        write_sample_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_in_its_place_is_left_alone(tmp_path):
    (tmp_path / "demo").write_text("x")
    for folder in (tmp_path / "demo", tmp_path / "demo" / "inside"):
        with pytest.raises(CalibrationError, match="demo"):
            write_sample_project(folder)
    assert (tmp_path / "demo").read_text() == "x"


def test_a_full_disk_is_one_error_and_nothing_is_left(small_disk):
    disk = small_disk("size=64k")
    with pytest.raises(CalibrationError, match=r"demo: could not be written: No space left"):
        write_sample_project(disk / "demo")
    assert not list(disk.iterdir())
