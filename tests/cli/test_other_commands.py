"""`calib demo`, `calib pack` and `calib cache`: what they do, and how they fail."""

import json
import struct

import h5py
import numpy as np
import pytest
from PIL import Image


def test_demo_writes_a_whole_project(calib, tmp_path):
    result = calib("demo", "digits", cwd=tmp_path)
    assert result.code == 0
    assert "next: cd digits && calib run --data imgs/ --algo entropy" in result.out
    folder = tmp_path / "digits"
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "calib.toml", "preprocess.toml", "imgs"}
    assert len(list((folder / "imgs").rglob("*.png"))) == 899


@pytest.mark.parametrize("is_file", [True, False])
def test_demo_overwrites_nothing(calib, tmp_path, is_file):
    precious = tmp_path / "digits" if is_file else tmp_path / "digits" / "notes.txt"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("precious")
    result = calib("demo", "digits", cwd=tmp_path)
    assert result.code == 1
    assert "digits: expected a new or empty folder, found files in it; choose another folder" in result.error
    assert precious.read_text() == "precious"


def test_pack_then_run_gives_the_scales_of_the_folder(calib, finished, report):
    before = (finished / "calib-out" / "calibration.cache").read_bytes()
    packed = calib("pack", "imgs", "imgs.h5", "--quiet", cwd=finished)
    assert packed.code == 0
    assert packed.out == "imgs.h5: 36 images\n"
    assert calib("run", "--data", "imgs.h5", "--out", "packed", cwd=finished).code == 0
    assert (finished / "packed" / "calibration.cache").read_bytes() == before
    assert report(finished, "packed")["builds"][0]["top1"] == 100


def test_pack_leaves_unreadable_images_out_and_says_so(calib, colours):
    (colours / "imgs" / "red" / "03.png").write_bytes(b"")
    result = calib("pack", "imgs", "imgs.h5", cwd=colours)
    assert result.code == 0
    assert result.out == "imgs.h5: 35 images\n"
    assert result.warnings == ["red/03.png was left out: empty file (0 bytes)"]
    with h5py.File(colours / "imgs.h5") as file:
        assert len(file["images"]) == len(file["labels"]) == 35


def test_pack_of_images_of_many_sizes_needs_a_size(calib, colours):
    Image.new("RGB", (30, 20)).save(colours / "imgs" / "red" / "03.png")
    (colours / "imgs.h5").write_bytes(b"older")
    result = calib("pack", "imgs", "imgs.h5", cwd=colours)
    assert result.code == 1
    assert "red/03.png: 20 x 30 pixels" in result.error
    assert (colours / "imgs.h5").read_bytes() == b"older"
    assert calib("pack", "imgs", "imgs.h5", "--size", "16x12", cwd=colours).code == 0
    with h5py.File(colours / "imgs.h5") as file:
        assert file["images"].shape == (36, 16, 12, 3)
        assert file["images"].dtype == np.uint8


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("nowhere", "imgs.h5"), "nowhere: no such folder"),
        (("imgs", "imgs.zip"), "imgs.zip: expected a file name ending in .h5 or .hdf5"),
        (("imgs", "no/such/imgs.h5"), "no/such/imgs.h5: cannot be written"),
        (("imgs", "imgs.h5", "--max-bad", 2), "max_bad: expected a share from 0 to 1, found 2"),
        (("imgs", "imgs.h5", "--labels", "none.csv"), "none.csv: no such file; expected a labels CSV"),
    ],
)
def test_pack_fails_with_one_line_and_writes_nothing(calib, colours, snapshot, arguments, part):
    older = snapshot(colours)
    result = calib("pack", *arguments, cwd=colours)
    assert result.code == 1
    assert part in result.error
    assert snapshot(colours) == older


def test_pack_counts_images_in_its_progress(colours, monkeypatch):
    import contextlib

    import calib.cli.parts.terminal
    from calib.cli.pack import command

    steps = []

    @contextlib.contextmanager
    def task(self, description, total):
        yield steps.append

    monkeypatch.setattr(calib.cli.parts.terminal.TerminalConsole, "task", task)
    monkeypatch.chdir(colours)
    command.main(["imgs", "imgs.h5"], standalone_mode=False)
    assert sum(steps) == 36


SHOW, CHECK = ("cache", "show"), ("cache", "check")
OURS = "calib-out/calibration.cache"


def test_cache_show_prints_scale_and_amax(calib, finished):
    text = calib(*SHOW, OURS, cwd=finished).out
    document = json.loads(calib(*SHOW, OURS, "--json", cwd=finished).out)
    assert text.splitlines()[0] == f"{OURS}: minmax, {len(document['scales'])} tensors, TensorRT 8600"
    assert (document["algo"], document["header"]) == ("minmax", "TRT-8600-MinMaxCalibration")
    for line in (finished / OURS).read_text().splitlines()[1:]:
        name, _, digits = line.rpartition(": ")
        (scale,) = struct.unpack(">f", bytes.fromhex(digits))
        assert document["scales"][name] == scale
        assert document["amax"][name] == pytest.approx(127 * scale)
        assert any(row.split()[0] == name for row in text.splitlines()[2:])


def test_cache_check_of_a_good_cache(calib, finished):
    result = calib(*CHECK, OURS, "--model", "model.onnx", cwd=finished)
    assert result.code == 0
    assert "every scale finite and positive" in result.out
    assert "provenance: minmax of 24 images; files belong together" in result.out
    assert "model: covers all 2 tensors that model.onnx needs" in result.out


def test_cache_check_of_a_bare_cache(calib, finished):
    (finished / "bare.cache").write_bytes((finished / OURS).read_bytes())
    result = calib(*CHECK, "bare.cache", "--model", "model.onnx", cwd=finished)
    assert result.code == 0
    assert "provenance: none" in result.out


def test_cache_check_of_another_model(calib, finished, write_model):
    write_model(finished / "model.onnx", opset=16)
    result = calib(*CHECK, OURS, "--model", "model.onnx", cwd=finished)
    assert result.code == 1
    assert f"{OURS}: was made from another model than model.onnx; recalibrate" in result.error


def test_cache_check_of_an_edited_cache(calib, finished, scales):
    scales(finished / OURS, lambda digits: "3f800000")
    result = calib(*CHECK, OURS, cwd=finished)
    assert result.code == 1
    assert "edited, swapped or missing" in result.error


def test_cache_check_of_a_bare_cache_that_lacks_a_tensor(calib, finished):
    lines = (finished / OURS).read_text().splitlines()
    (finished / "bare.cache").write_text("\n".join([*lines[:2], "elsewhere: 3f800000"]) + "\n")
    result = calib(*CHECK, "bare.cache", "--model", "model.onnx", cwd=finished)
    assert result.code == 1
    assert result.out.splitlines()[-2:] == ["missing: flat", "not the model's: elsewhere"]
    (line,) = result.err.splitlines()
    assert "bare.cache: does not fit model.onnx: 1 of 2 needed tensors are missing ('flat' first)" in line
    assert "1 are not the model's ('elsewhere' first)" in line


def test_cache_check_of_another_model_s_cache_is_a_summary_and_json_lists_all(calib, finished):
    others = [f"elsewhere{i}" for i in range(100)]
    (finished / "bare.cache").write_text("TRT-8600-MinMaxCalibration\n" + "".join(f"{o}: 3f800000\n" for o in others))
    options = (*CHECK, "bare.cache", "--model", "model.onnx")
    shown = calib(*options, cwd=finished)
    assert shown.code == 1
    assert shown.out.splitlines()[2:] == [
        "model: covers 0 of the 2 tensors that model.onnx needs",
        "missing: input",
        "missing: flat",
        *(f"not the model's: elsewhere{i}" for i in range(5)),
        "not the model's: and 95 more, which --json lists",
    ]
    result = calib(*options, "--json", cwd=finished)
    document = json.loads(result.out)
    assert (result.code, result.err) == (shown.code, shown.err)
    assert (document["algo"], document["tensors"], document["provenance"]) == ("minmax", 100, None)
    expected = {"model": "model.onnx", "needed": 2, "missing": ["input", "flat"], "foreign": others, "masks": []}
    assert document["fit"] == expected
    assert document["failure"] in result.err


def test_cache_check_as_json_of_a_cache_that_fits(calib, finished):
    result = calib(*CHECK, OURS, "--model", "model.onnx", "--json", cwd=finished)
    document = json.loads(result.out)
    assert (result.code, result.err) == (0, "")
    assert document["failure"] is None
    assert document["provenance"] == {"algo": "minmax", "images": 24}
    assert (document["fit"]["missing"], document["fit"]["foreign"]) == ([], [])


@pytest.mark.parametrize("command", [SHOW, CHECK])
@pytest.mark.parametrize(
    ("contents", "part"),
    [
        (None, "bad.cache: cannot be read: No such file or directory"),
        (b"", "bad.cache:1: expected 'TRT-<version>-<calibrator>', found ''"),
        (b"\xff\x00", "bad.cache: expected text, found binary data"),
        (b"TRT-8600-MinMaxCalibration\ninput: 3f\n", "bad.cache:2: expected '<tensor>: <8 hex digits>'"),
        (b"TRT-8600-MinMaxCalibration\ninput: 00000000\n", "bad.cache:2: expected a finite scale above zero"),
        (b"TRT-8600-OtherCalibration\ninput: 3f800000\n", "bad.cache:1: expected one of EntropyCalibration2"),
    ],
)
def test_cache_commands_on_a_bad_file(calib, tmp_path, command, contents, part):
    if contents is not None:
        (tmp_path / "bad.cache").write_bytes(contents)
    result = calib(*command, "bad.cache", cwd=tmp_path)
    assert result.code == 1
    assert part in result.error


def test_doctor_prints_a_line_for_each_thing_and_never_fails(calib, tmp_path):
    result = calib("doctor", cwd=tmp_path)
    assert result.code == 0
    whats = [line[4:].split("  ")[0].strip() for line in result.out.splitlines()]
    assert {"Python", "GPU", "TensorRT", "onnxruntime", "torch", "--backend onnxruntime"} <= set(whats)
    assert all(line.startswith(("ok  ", "--  ")) for line in result.out.splitlines())


def test_doctor_prints_the_same_as_json(calib, tmp_path):
    found = json.loads(calib("doctor", "--json", cwd=tmp_path).out)["findings"]
    text = calib("doctor", cwd=tmp_path).out
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        " ".join(("ok" if each["works"] else "--", each["what"], each["text"])) for each in found
    ]


def test_a_pack_keeps_what_the_preprocessing_needs_or_the_run_says_what_it_lost(calib, colours):
    for image in list((colours / "imgs").rglob("*.png"))[::2]:
        with Image.open(image) as pixels:
            larger = pixels.resize((24, 16))
        larger.save(image)
    assert "--size" in calib("pack", "imgs", "none.h5", cwd=colours).error
    arguments = ("--precision", "fp32", "--quiet", "--out")
    assert calib("pack", "imgs", "plain.h5", "--size", "8x8", "--quiet", cwd=colours).code == 0
    fitted = ("--size", "8x8", "--preprocess", "unit", "--quiet")
    assert calib("pack", "imgs", "fitted.h5", *fitted, cwd=colours).code == 0
    plain = calib("run", "--data", "plain.h5", *arguments, "a", cwd=colours)
    assert plain.warnings == [
        "plain.h5: the images were fitted to 8x8 by resize 'crop' of 1.0 when they were packed, where this "
        "preprocessing has 'stretch'; pack them with calib pack --preprocess"
    ]
    assert calib("run", "--data", "fitted.h5", *arguments, "b", cwd=colours).warnings == []


def test_only_a_process_of_its_own_looks_for_garbage_less_often(start_script, tmp_path):
    script = (
        "import gc, sys\nfrom calib.cli import main\nbefore = gc.get_threshold()[0]\n"
        "try:\n    main({})\nfinally:\n    print(gc.get_threshold()[0] / before)"
    )
    found = {}
    for arguments in ("None", "['--version']"):
        out, _ = start_script(script.format(arguments), "--version", cwd=tmp_path).communicate(timeout=300)
        found[arguments] = float(out.split()[-1])
    assert found["['--version']"] == 1  # the caller may have objects of another kind
    assert found["None"] > 10
