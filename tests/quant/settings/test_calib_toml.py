import os
from pathlib import Path

import pytest

from quant.errors import QuantError
from quant.settings.calib_toml import settings_from_options
from quant.settings.run_settings import RunSettings


@pytest.fixture
def project(tmp_path):
    """A folder with a model and a `calib.toml` of the given text."""

    def make(text=None):
        (tmp_path / "only.onnx").write_bytes(b"")
        if text is not None:
            (tmp_path / "calib.toml").write_text(text)
        return tmp_path

    return make


def test_defaults_are_those_of_the_command_line_s_description(project):
    settings = settings_from_options({"data": Path("imgs")}, project())
    assert (settings.algo, settings.percentile, settings.num_images) == ("auto", 99.99, None)
    assert (settings.sampling, settings.batch_size, settings.backend) == ("random", 64, "auto")
    assert (settings.precision, settings.max_drop, settings.max_bad) == ("int8", 1.0, 0.05)
    assert settings.out == Path("calib-out")
    assert settings.cache_path == Path("calib-out/calibration.cache")


def test_every_setting_can_stand_in_the_file(project):
    folder = project(
        """
        model = "m.onnx"
        data = "imgs"
        eval = "test"
        labels = "labels.csv"
        classes = "classes.txt"
        preprocess = "unit"
        algo = "percentile"
        percentile = 99
        num_images = 10
        sampling = "first"
        batch_size = 2
        seed = 3
        backend = "onnxruntime"
        precision = "int8"
        cache = "my.cache"
        cache_only = true
        trust_cache = false
        out = "results"
        max_drop = 2
        max_bad = 0.5
        """
    )
    settings = settings_from_options({}, folder)
    assert settings == RunSettings(
        model=folder / "m.onnx",
        data=folder / "imgs",
        eval=folder / "test",
        labels=folder / "labels.csv",
        classes=folder / "classes.txt",
        preprocess="unit",
        algo="percentile",
        percentile=99.0,
        num_images=10,
        sampling="first",
        batch_size=2,
        seed=3,
        backend="onnxruntime",
        precision="int8",
        cache=folder / "my.cache",
        cache_only=True,
        out=folder / "results",
        max_drop=2.0,
        max_bad=0.5,
    )
    assert isinstance(settings.percentile, float)


def test_options_win_and_none_is_not_given(project):
    folder = project('data = "imgs"\nalgo = "mse"\nnum-images = 7\n')
    settings = settings_from_options({"algo": "minmax", "num_images": None, "data": None}, folder)
    assert (settings.algo, settings.num_images, settings.data) == ("minmax", 7, folder / "imgs")


def test_paths_in_the_file_are_relative_to_it_and_absolute_ones_stay(project, tmp_path):
    folder = project(
        f'data = "../imgs"\nout = "{tmp_path}/elsewhere"\npreprocess = "my/prep.toml"\nmetric = "my m.py:f"\n'
    )
    settings = settings_from_options({}, folder, allow_code=True)
    assert settings.data == folder / ".." / "imgs"
    assert settings.out == tmp_path / "elsewhere"
    assert settings.preprocess == str(folder / "my" / "prep.toml")
    assert settings.metric == f"{folder / 'my m.py'}:f"


def test_paths_of_options_stay_as_they_are(project):
    settings = settings_from_options({"data": Path("imgs"), "preprocess": "prep.toml"}, project())
    assert (settings.data, settings.preprocess) == (Path("imgs"), "prep.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('dta = "imgs"', "unknown key 'dta'; known are model, data, eval, "),
        ('[data]\npath = "imgs"', "data: expected a path in quotes, found {'path': 'imgs'}"),
        ("data = 3", "data: expected a path in quotes, found 3"),
        ('out = ""', "out: expected a path in quotes, found ''"),
        ('num_images = "10"', "num_images: expected a whole number, found '10'"),
        ("num_images = 1.5", "num_images: expected a whole number, found 1.5"),
        ("num_images = true", "num_images: expected a whole number, found True"),
        ('max_drop = "1"', "max_drop: expected a number, found '1'"),
        ("max_drop = false", "max_drop: expected a number, found False"),
        ("cache_only = 1", "cache_only: expected true or false, found 1"),
        ("algo = 4", "algo: expected a text in quotes, found 4"),
        ("preprocess = 4", "preprocess: expected a text in quotes, found 4"),
        ("data = ", "not valid TOML"),
        ("data = " + "[" * 100_000, "not valid TOML: nested too deeply"),
        ("seed = " + "9" * 5000, "not valid TOML"),
        ("max_drop = " + "9" * 400, "max_drop: expected a number, found a whole number of 1329 bits"),
        ('data = "' + "x" * 5000, "not valid TOML"),
        ("algo = [" + "1, " * 5000 + "]", "algo: expected a text in quotes, found [1, 1, 1, 1"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(project, text, message):
    with pytest.raises(QuantError) as caught:
        settings_from_options({}, project(text))
    assert f"calib.toml: {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 9223372036854775808", "seed: expected a whole number of up to 63 bits"),
        ("max_drop = 1e308", "max_drop: expected percentage points from -1000 to 1000, found 1e"),
        ("max_drop = nan", "max_drop: expected percentage points"),
        ("percentile = nan", "percentile: expected a number above 0 and up to 100, found nan"),
        ("max_bad = nan", "max_bad: expected a share from 0 to 1, found nan"),
        ('labels = "a\\u0000b"', "labels: expected a name, found one with a zero character"),
    ],
)
def test_absurd_values_are_refused_in_a_short_line(project, text, message):
    with pytest.raises(QuantError) as caught:
        settings_from_options({}, project(f'data = "imgs"\n{text}'))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_configuration_that_is_no_regular_file_is_refused_at_once(project):
    folder = project()
    (folder / "calib.toml").symlink_to("/dev/zero")
    with pytest.raises(QuantError, match=r"calib\.toml: cannot be read: not a regular file"):
        settings_from_options({}, folder)
    (folder / "calib.toml").unlink()
    os.mkfifo(folder / "calib.toml")
    with pytest.raises(QuantError, match=r"calib\.toml: cannot be read: not a regular file"):
        settings_from_options({}, folder)


def test_code_named_by_the_file_alone_is_not_taken(project):
    folder = project('data = "imgs"\nmetric = "m.py:f"\n')
    with pytest.raises(QuantError, match=r"metric: would execute .*m\.py .*--allow-code, or --metric .*m\.py:f"):
        settings_from_options({}, folder)
    assert settings_from_options({}, folder, allow_code=True).metric == f"{folder / 'm.py'}:f"
    assert settings_from_options({"metric": "mine.py:g"}, folder).metric == "mine.py:g"


@pytest.mark.parametrize("value", ["../elsewhere", "/elsewhere", "link/inside"])
@pytest.mark.parametrize("name", ["out", "cache"])
def test_a_place_outside_named_by_the_file_alone_is_not_written_to(project, tmp_path, name, value):
    (tmp_path / "link").symlink_to(tmp_path.parent)
    folder = project(f'data = "imgs"\n{name} = "{value}"\n')
    with pytest.raises(QuantError, match=rf"{name}: would write to .*, outside of .*--allow-code, or --{name} "):
        settings_from_options({}, folder)
    assert getattr(settings_from_options({}, folder, allow_code=True), name) == folder / value
    assert getattr(settings_from_options({name: Path("mine")}, folder), name) == Path("mine")
    if name == "cache":  # one that is only read
        assert settings_from_options({"trust_cache": True}, folder).cache == folder / value


def test_a_link_in_a_circle_is_no_crash(project):
    folder = project('data = "imgs"\n')
    (folder / "loop").symlink_to(folder / "loop")
    assert settings_from_options({"out": folder / "loop"}, folder).out == folder / "loop"
    assert settings_from_options({"cache": folder / "loop"}, folder).cache_path == folder / "loop"


def test_the_usual_folder_may_not_be_a_link_that_came_with_the_others(project, tmp_path, monkeypatch):
    folder = project('data = "imgs"\n')
    monkeypatch.chdir(folder)
    (folder / "calib-out").symlink_to(tmp_path.parent)
    with pytest.raises(QuantError, match="out: would write to"):
        settings_from_options({})
    assert settings_from_options({"out": Path("calib-out")}).out == Path("calib-out")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_as_windows_editors_save_it_is_read_or_its_encoding_is_named(project, encoding):
    folder = project()
    (folder / "calib.toml").write_bytes('data = "imgs"\n'.encode(encoding))
    if encoding == "utf-8-sig":
        assert settings_from_options({}, folder).data == folder / "imgs"
    else:
        with pytest.raises(QuantError, match=r"calib\.toml: is not UTF-8 text \(byte 0\); save it as UTF-8$"):
            settings_from_options({}, folder)


def test_a_link_that_leads_nowhere_is_not_taken_for_no_file(project):
    folder = project()
    (folder / "calib.toml").unlink(missing_ok=True)
    (folder / "calib.toml").symlink_to(folder / "gone.toml")
    with pytest.raises(QuantError, match=r"calib\.toml: cannot be read: No such file"):
        settings_from_options({"data": folder / "imgs"}, folder)


def test_without_data_the_run_says_what_to_give(project):
    with pytest.raises(QuantError, match=r"expected a folder of images .*--data or put it in calib\.toml"):
        settings_from_options({}, project())


def test_the_only_model_of_the_folder_is_taken(project):
    folder = project('data = "imgs"')
    assert settings_from_options({}, folder).model == folder / "only.onnx"


def test_of_several_models_none_is_taken(project):
    folder = project('data = "imgs"')
    (folder / "other.onnx").write_bytes(b"")
    with pytest.raises(QuantError, match=r"found 2: only\.onnx, other\.onnx; choose with --model"):
        settings_from_options({}, folder)
    assert settings_from_options({"model": Path("third.onnx")}, folder).model == Path("third.onnx")


def test_no_model_at_all_is_said(tmp_path):
    with pytest.raises(QuantError, match=r"expected one \*\.onnx in .*, found none; choose with --model"):
        settings_from_options({"data": Path("imgs")}, tmp_path)


def test_the_working_folder_is_the_default(project, monkeypatch):
    monkeypatch.chdir(project('data = "imgs"'))
    settings = settings_from_options({})
    assert (settings.model, settings.data) == (Path("only.onnx"), Path("imgs"))


def test_what_tensorrt_builds_need_can_stand_in_the_file(project):
    text = """
        backend = "tensorrt"
        calibrator = "tensorrt"
        strict_int8 = true
        explicit = true
        dynamic = "1:8:64"
        workspace = 512
        builder_level = 4
        tactic_sources = "EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS"
        dla = 1
        """
    settings = settings_from_options({"data": Path("imgs")}, project(text))
    assert (settings.backend, settings.calibrator, settings.dynamic) == ("tensorrt", "tensorrt", "1:8:64")
    assert (settings.strict_int8, settings.explicit) == (True, True)
    assert (settings.workspace, settings.builder_level, settings.dla) == (512, 4, 1)
    assert settings.tactic_sources == "EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS"
