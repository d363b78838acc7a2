"""How the command line reacts to its options, to calib.toml and to its environment."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from calib.cli.run import command as run_command
from quant.settings.choices import CHOICES
from quant.settings.run_settings import RunSettings

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "numpy", "onnx", "onnxruntime", "llvmlite", "numba", "h5py", "PIL", "rich", "jinja2", "torch", "tensorrt", "cuda",
    "matplotlib",
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("run", "--unknown"), "--unknown"),
        (("run", "--algo", "median"), "'median' is not one of 'auto', 'entropy', 'minmax', 'percentile', 'mse'"),
        (("run", "--precision", "int4"), "'int4' is not one of 'int8', 'fp16', 'fp32'"),
        (("run", "--num-images", "many"), "'many' is not a valid integer"),
        (("run", "--data"), "--data"),
        (("run", "extra"), "unexpected extra argument"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("demo",), "Missing argument 'FOLDER'"),
        (("pack", "imgs", "imgs.h5", "--size", "large"), "expected HEIGHTxWIDTH such as 256x256, found 'large'"),
        (("cache", "show"), "Missing argument 'CACHE'"),
        (("run", "--data", ""), "'--data': expected a path, found an empty text; is a variable not set?"),
        (("run", "--junit", ""), "'--junit': expected a path, found an empty text"),
        (("cache", "show", ""), "'CACHE': expected a path, found an empty text"),
        (("demo", ""), "'FOLDER': expected a path, found an empty text"),
    ],
)
def test_wrong_usage_exits_with_2(calib, colours, arguments, part):
    result = calib(*arguments, cwd=colours)
    assert result.code == 2
    assert part in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert not (colours / "calib-out").exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--num-images", 0), "num_images: expected at least 1, found 0"),
        (("--max-drop", "inf"), "max_drop: expected percentage points from -1000 to 1000, found inf"),
        (("--seed", -1), "seed: expected 0 or more, found -1"),
        (("--preprocess", "imagenette"), "no preset 'imagenette'; expected one of imagenet, imagenet-tf"),
        (("--preprocess", "none.toml"), "none.toml: no such file"),
        (("--cache-only", "--precision", "fp16"), "cache_only: only INT8 uses a cache"),
        (("--classes", "none.txt"), "none.txt: no such file; expected a classes file"),
    ],
)
def test_a_value_that_makes_no_sense_exits_with_1(calib, colours, options, part):
    result = calib("run", *options, cwd=colours)
    assert result.code == 1
    assert part in result.error


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('algoritm = "entropy"', "calib.toml: unknown key 'algoritm'; known are model, data, eval"),
        ('algo = "median"', "algo: expected one of auto, entropy, minmax, percentile, mse, found 'median'"),
        ("algo = ", "calib.toml: not valid TOML"),
    ],
)
def test_a_wrong_calib_toml_exits_with_1_and_says_where(calib, colours, line, part):
    (colours / "calib.toml").write_text(f'data = "imgs"\n{line}\n')
    result = calib("run", cwd=colours)
    assert result.code == 1
    assert part in result.error
    assert not (colours / "calib-out").exists()


def test_options_win_over_calib_toml(calib, colours, report):
    with (colours / "calib.toml").open("a") as file:
        file.write('seed = 3\nmax-drop = 7\nout = "from-file"\n')
    assert calib("run", "--algo", "mse", "--seed", 4, cwd=colours).code == 0
    found = report(colours, "from-file")
    assert found["calibration"]["algo"] == "mse"
    assert found["data"]["calibration"]["seed"] == 4
    assert found["max_drop"] == 7
    assert found["calibration"]["images"] == 24


def test_without_data_the_line_says_what_to_give(calib, tmp_path):
    result = calib("run", cwd=tmp_path)
    assert result.code == 1
    assert "data: expected a folder of images or an HDF5 pack, found nothing; give --data" in result.error


def test_every_setting_is_an_option_and_the_choices_agree():
    options = {option.name: option for option in run_command.params}
    assert set(RunSettings.__dataclass_fields__) <= set(options)
    for name, choices in CHOICES.items():
        assert tuple(options[name].type.choices) == tuple(choices)


def test_help_of_every_command_imports_nothing_heavy():
    """One process for all: what one of them loads, those after it find."""
    commands = [(), ("run",), ("compare",), ("sweep",), ("export",), ("pack",), ("demo",), ("doctor",)]
    commands += [("cache",), *(("cache", name) for name in ("show", "check", "diff", "convert", "merge"))]
    program = f"""
import sys
from calib.cli import main
for command in {[*commands]!r}:
    for option in ["--help"] if command else ["--version", "--help"]:
        try:
            main([*command, option])
        except SystemExit as end:
            assert end.code == 0, command
    print("MODULES", *{{name.split(".")[0] for name in sys.modules}})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    loaded = re.findall(r"^MODULES (.*)$", done.stdout, re.M)
    assert done.stdout.count("Usage: calib") == len(commands) == len(loaded)
    heavy = {" ".join(command): set(names.split()) & HEAVY for command, names in zip(commands, loaded, strict=True)}
    assert not any(heavy.values()), heavy


def test_the_help_names_all_exit_codes(calib, tmp_path):
    text = " ".join(calib("--help", cwd=tmp_path).out.split())
    for part in ("0 done", "1 failed", "2 wrong usage", "3 done, but neither", "130 interrupted"):
        assert part in text


def test_another_distributions_datasets_is_told_before_anything_else(start_calib, finish, tmp_path):
    (tmp_path / "site" / "datasets").mkdir(parents=True)
    (tmp_path / "site" / "datasets" / "__init__.py").write_text("raise SystemExit('imported')\n")
    result = finish(start_calib("run", "--unknown", cwd=tmp_path, prefix=[tmp_path / "site"]))
    assert result.code == 1
    assert (
        "import package 'datasets': expected the one from calib-int8, found another distribution's at " in result.error
    )
    assert str(tmp_path / "site" / "datasets") in result.error


def test_a_failure_that_no_package_foresaw_is_still_one_line(calib, colours, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "/somewhere/file")

    monkeypatch.setattr("quant.jobs.run.load_model", full)
    result = calib("run", cwd=colours)
    assert result.code == 1
    assert result.error == "calib: error: /somewhere/file: No space left on device"


def test_a_batch_larger_than_all_images_holds_all_of_them(calib, colours, report):
    assert calib("run", "--quiet", "--batch-size", 1 << 44, cwd=colours).code == 0
    assert report(colours)["data"]["evaluation"]["images"] == 12


def test_no_more_memory_is_told(calib, colours, monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr("quant.jobs.run.open_data", exhausted)
    result = calib("run", "--quiet", cwd=colours)
    assert result.code == 1
    assert result.error == "calib: error: out of memory; use a smaller --batch-size"


def test_the_help_of_compare_and_sweep_says_what_their_own_options_do(calib, tmp_path):
    """docs/configuration.md: for sweep and compare, `auto` means ONNX Runtime, except with engines."""
    found = {name: " ".join(calib(name, "--help", cwd=tmp_path).out.split()) for name in ("compare", "sweep", "run")}
    assert "default auto: ONNX Runtime" in found["compare"] and "default auto: ONNX Runtime" in found["sweep"]
    assert "TensorRT if it and a GPU are found" in found["run"]
    for text in (found["compare"], found["sweep"]):
        assert "TensorRT if it and a GPU are found" not in text
    assert "Calibration images" not in found["compare"]
    assert "Calibration images" in found["sweep"]
