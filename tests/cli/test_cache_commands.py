"""`calib cache diff`, `convert` and `merge`."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from calib.caches.cache import CalibrationCache, read_cache, text_from_cache
from calib.caches.provenance import read_calibration
from quant.onnx_graph.tracing import with_tensors_renamed
from quant.onnxruntime.session import OnnxRuntimeSession
from tests.colour_project import write_model
from tests.once import made_once

OURS = "calib-out/calibration.cache"


def test_diff_prints_the_median_ratio_and_the_worst_first(calib, finished, scales):
    shutil.copy(finished / OURS, finished / "mine.cache")
    lines = (finished / OURS).read_text().splitlines()
    (finished / "other.cache").write_text("\n".join([*lines[:2], "elsewhere: 3f800000"]) + "\n")
    result = calib("cache", "diff", "mine.cache", "other.cache", cwd=finished)
    assert result.code == 0
    assert result.out.startswith("1 tensors in both; amax of other.cache over mine.cache: median ratio 1.0000")
    assert "only in other.cache, 1:\n  elsewhere\n" in result.out
    scales(finished / "mine.cache", lambda digits: "3f800000")
    scales(finished / "other.cache", lambda digits: "40000000")
    document = json.loads(calib("cache", "diff", "mine.cache", "other.cache", "--json", cwd=finished).out)
    assert document["median_ratio"] == 2


def test_diff_of_a_cache_and_the_model_made_from_it(calib, finished):
    result = calib("cache", "diff", OURS, "calib-out/model.int8.onnx", cwd=finished)
    assert result.code == 0
    assert "median ratio 1.0000, 100% within 1%" in result.out


def test_convert_there_and_back_loses_nothing(calib, finished):
    original = (finished / OURS).read_bytes()
    steps = [
        (OURS, "a.json"),
        ("a.json", "b.onnx", "--model", "model.onnx"),
        ("b.onnx", "c.cache", "--tensorrt", "10.3.0"),
        ("c.cache", "d.onnx", "--model", "model.onnx", "--header", "entropy2"),
        ("d.onnx", "e.json"),
        ("e.json", "f.cache", "--tensorrt", "8.6.0", "--header", "minmax"),
    ]
    for step in steps:
        assert calib("cache", "convert", *step, cwd=finished).code == 0, step
    assert (finished / "c.cache").read_text().startswith("TRT-100300-MinMaxCalibration\n")
    assert read_cache(finished / "c.cache").scales == read_cache(finished / OURS).scales
    assert json.loads((finished / "e.json").read_text())["header"] == "TRT-100300-EntropyCalibration2"
    assert (finished / "f.cache").read_bytes() == original


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("model.onnx", "model.onnx: would be overwritten by the converted model; name OUT otherwise"),
        ("other.onnx", "other.onnx: already exists and holds no cache, so it is not replaced; name OUT otherwise"),
        ("calib.toml", "calib.toml: already exists and holds no cache, so it is not replaced; name OUT otherwise"),
        ("boxes.json", "boxes.json: already exists and holds no cache, so it is not replaced; name OUT otherwise"),
    ],
)
def test_convert_replaces_caches_alone(calib, finished, target, said):
    shutil.copy(finished / "model.onnx", finished / "other.onnx")
    (finished / "boxes.json").write_text('{"images": [], "annotations": [], "categories": []}')
    before = (finished / target).read_bytes()
    result = calib("cache", "convert", OURS, target, "--model", "model.onnx", cwd=finished)
    assert (result.code, result.err) == (1, f"calib: error: {said}\n")
    assert (finished / target).read_bytes() == before


def test_convert_replaces_what_it_wrote_before_and_converts_a_text_in_its_place(calib, finished):
    (finished / "empty.cache").touch()
    for target in ("a.cache", "a.cache", "empty.cache", "b.onnx", "b.onnx", "c.json", "c.json"):
        assert calib("cache", "convert", OURS, target, "--model", "model.onnx", cwd=finished).code == 0, target
    assert calib("cache", "convert", "a.cache", "a.cache", "--tensorrt", "10.3.0", cwd=finished).code == 0
    assert (finished / "a.cache").read_text().startswith("TRT-100300-")
    assert calib("cache", "convert", "b.onnx", "b.onnx", "--model", "model.onnx", cwd=finished).code == 1


@pytest.mark.parametrize("made", ["x.json", "x.onnx"])
def test_check_reads_every_kind_of_cache(calib, finished, made):
    assert calib("cache", "convert", OURS, made, "--model", "model.onnx", cwd=finished).code == 0
    result = calib("cache", "check", made, "--model", "model.onnx", cwd=finished)
    assert result.code == 0, result.err
    assert "model: covers all " in result.out
    refused = calib("cache", "check", made, "--for", "onnxruntime-tensorrt", cwd=finished)
    assert refused.code == 1
    assert f"{made}: expected TensorRT's text, which onnxruntime-tensorrt reads, found .{made[2:]}" in refused.err


def test_convert_to_a_model_gives_the_model_that_run_builds(calib, finished, random_colours):
    assert calib("cache", "convert", OURS, "converted.onnx", "--model", "model.onnx", cwd=finished).code == 0
    outputs = random_colours(finished / "converted.onnx"), random_colours(finished / "calib-out" / "model.int8.onnx")
    np.testing.assert_array_equal(*outputs)


@pytest.fixture
def random_colours():
    """The outputs of a model for the same random input."""
    import onnxruntime

    def run(path: Path):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (info,) = session.get_inputs()
        shape = [size if isinstance(size, int) else 2 for size in info.shape]
        return session.run(None, {info.name: np.random.default_rng(0).random(shape, np.float32)})[0]

    return run


def test_convert_warns_of_a_header_that_tensorrt_does_not_know(calib, finished):
    text = (finished / OURS).read_text()
    (finished / "mse.cache").write_text(text.replace("MinMaxCalibration", "MSECalibration"))
    result = calib("cache", "convert", "mse.cache", "out.cache", cwd=finished)
    assert result.warnings == ["TensorRT has no calibrator called MSECalibration; use --header entropy2 for TensorRT"]
    result = calib("cache", "convert", "mse.cache", "out.cache", "--header", "entropy2", cwd=finished)
    assert result.out == "out.cache: 5 scales, TRT-8600-EntropyCalibration2\n"
    assert "has no calibrator" not in result.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("none.cache", "out.cache"), "none.cache: cannot be read: No such file or directory"),
        (("model.onnx", "out.cache"), "model.onnx: expected a Q/DQ model, found no QuantizeLinear"),
        ((OURS, "out.onnx"), "out.onnx: expected the FP32 model that the scales go into, found none"),
        ((OURS, "calib-out/calibration.json"), "calibration.json: holds what the cache beside it was made from"),
        ((OURS, "out.cache", "--tensorrt", "11.4.0"), "11.4.0 does not read calibration caches"),
        ((OURS, "out.cache", "--tensorrt", "new"), "TensorRT version: expected a version like 8600"),
        (("part.cache", "out.onnx", "--model", "model.onnx"), "part.cache: expected scales of all 2 tensors"),
        (("imgs/red/00.png", "out.cache"), "00.png: expected text, found binary data; a cache is text, JSON"),
    ],
)
def test_convert_fails_with_one_line_and_writes_nothing(calib, finished, snapshot, arguments, part):
    lines = (finished / OURS).read_text().splitlines()
    (finished / "part.cache").write_text("\n".join(lines[:2]) + "\n")
    before = snapshot(finished)
    result = calib("cache", "convert", *arguments, cwd=finished)
    assert result.code == 1
    assert part in result.error
    assert snapshot(finished) == before


@pytest.fixture(scope="session")
def shards_master(colours_master, tmp_path_factory):
    """The colour project in shards, calibrated; tests take `shards`, a copy."""

    def make(project):
        from quant import run
        from quant.settings.calib_toml import settings_from_options

        shutil.copytree(colours_master, project)
        names = sorted(path.relative_to(project / "imgs") for path in (project / "imgs").rglob("*.png"))
        for folder, part in (("a", names[:12]), ("b", names[12:])):
            for name in part:
                (project / folder / name.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy(project / "imgs" / name, project / folder / name)
        (project / "classes.txt").write_text("blue\ngreen\nred\n")
        options = {"sampling": "first", "classes": Path("classes.txt"), "algo": "minmax"}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(project)
            for data, out, count in (("a", "out-a", 12), ("b", "out-b", 24), ("imgs", "whole", 36)):
                document = run(
                    settings_from_options({**options, "data": Path(data), "out": Path(out), "num_images": count})
                )
                assert document["verdict"] == "pass"

    return made_once(tmp_path_factory, "shards", make)


@pytest.fixture
def shards(shards_master, tmp_path):
    """Two calibrations of 12 and 24 images, and one of all 36 in the same order."""
    return shutil.copytree(shards_master, tmp_path / "shards")


def test_merged_shards_are_bit_by_bit_the_whole(calib, shards):
    result = calib(
        "cache", "merge", "out-a/calibration.h5", "out-b/calibration.cache", "--out", "all/all.cache",
        "--algo", "minmax", cwd=shards,
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    assert "tensors from 36 images, with provenance" in result.out
    assert (shards / "all" / "all.cache").read_bytes() == (shards / "whole" / "calibration.cache").read_bytes()
    merged, whole = read_calibration(shards / "all" / "all.cache"), read_calibration(shards / "whole/calibration.cache")
    assert merged.source.data == whole.source.data
    for name, histogram in whole.statistics.histograms.items():
        np.testing.assert_array_equal(merged.statistics.histograms[name].signed_counts, histogram.signed_counts)


def test_a_merged_cache_serves_a_run_on_all_images(calib, shards):
    shards_of = ("out-a/calibration.h5", "out-b/calibration.h5")
    assert calib("cache", "merge", *shards_of, "--out", "all.cache", "--algo", "minmax", cwd=shards).code == 0
    result = calib(
        "run", "--num-images", 36, "--sampling", "first", "--cache", "all.cache", "--cache-only", "--algo", "minmax",
        "--json", cwd=shards,
    )  # fmt: skip
    assert result.code == 0
    assert json.loads(result.out)["calibration"]["how"] == "reused"


def test_bare_statistics_merge_without_provenance(calib, shards):
    for name in ("a", "b"):
        shutil.copy(shards / f"out-{name}" / "calibration.h5", shards / f"{name}.h5")
    result = calib("cache", "merge", "a.h5", "b.h5", "--out", "all.cache", "--algo", "minmax", cwd=shards)
    assert result.code == 0
    assert "without provenance: not every shard has it" in result.out
    assert (shards / "all.cache").read_bytes() == (shards / "whole" / "calibration.cache").read_bytes()
    assert (shards / "all.h5").is_file()
    assert not (shards / "all.json").exists()


def test_an_image_in_two_shards_is_told(calib, shards):
    result = calib("cache", "merge", "out-a/calibration.h5", "whole/calibration.h5", "--out", "all.cache", cwd=shards)
    assert result.warnings == [
        "12 images are in more than one shard (or twice in one) and are counted each time",
    ]


def test_shards_of_another_model_or_preprocessing_are_refused(calib, shards, write_model, snapshot):
    assert calib("run", "--data", "a", "--classes", "classes.txt", "--preprocess", "imagenet", "--out", "other",
                 cwd=shards).code in (0, 3)  # fmt: skip
    before = snapshot(shards)
    result = calib("cache", "merge", "out-a/calibration.h5", "other/calibration.h5", "--out", "x.cache", cwd=shards)
    assert result.code == 1
    assert "calibration.cache: expected the preprocessing of out-a/calibration.cache, found another" in result.error
    assert snapshot(shards) == before


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("none.h5", "--out", "x.cache"), "none.h5: cannot be read as statistics"),
        (
            ("calib-out/calibration.h5", "--out", "calib-out/calibration.cache"),
            "expected a new file, found one of the shards",
        ),
        (
            ("calib-out/calibration.h5", "--out", "precious.cache"),
            "precious.cache: already exists and would be replaced",
        ),
        (("calib-out/calibration.h5", "--out", "x.h5"), "x.h5: expected the path of a cache"),
    ],
)
def test_merge_fails_with_one_line_and_writes_nothing(calib, finished, snapshot, arguments, part):
    (finished / "precious.cache").write_text("precious")
    before = snapshot(finished)
    result = calib("cache", "merge", *arguments, cwd=finished)
    assert result.code == 1
    assert part in result.error
    assert snapshot(finished) == before


def test_a_converted_model_passes_onnx_s_checker(calib, finished):
    assert calib("cache", "convert", OURS, "converted.onnx", "--model", "model.onnx", cwd=finished).code == 0
    onnx.checker.check_model(onnx.load(finished / "converted.onnx"), full_check=True)


def test_convert_says_that_a_header_of_another_algorithm_changes_no_scale(calib, finished):
    assert calib("cache", "convert", OURS, "same.cache", "--header", "minmax", cwd=finished).err == ""
    result = calib("cache", "convert", OURS, "other.cache", "--header", "entropy2", cwd=finished)
    assert result.code == 0
    assert result.warnings == [
        "the first line now says entropy, for the TensorRT that expects it; the scales are still those of minmax "
        "(TRT-8600-MinMaxCalibration)"
    ]
    assert read_cache(finished / "other.cache").scales == read_cache(finished / OURS).scales


def test_show_reads_json_and_qdq_models_as_diff_and_convert_do(calib, finished):
    shown = json.loads(calib("cache", "show", OURS, "--json", cwd=finished).out)
    for other in ("a.json", "b.onnx"):
        assert calib("cache", "convert", OURS, other, "--model", "model.onnx", cwd=finished).code == 0
        assert json.loads(calib("cache", "show", other, "--json", cwd=finished).out) == shown
        assert calib("cache", "show", other, cwd=finished).out.startswith(f"{other}: minmax, {len(shown['scales'])} ")


def test_show_of_a_float_model_names_what_it_lacks_and_advises_no_deletion(calib, finished):
    result = calib("cache", "show", "model.onnx", cwd=finished)
    assert result.code == 1
    assert "model.onnx: expected a Q/DQ model" in result.error
    assert "delete" not in result.error


FOR = ("--for", "onnxruntime-tensorrt")


@pytest.fixture
def colons(colours):
    """The colour classifier with the names that TensorFlow's exporter gives, and a cache of it."""
    model = onnx.load(colours / "model.onnx")
    model = with_tensors_renamed(model, {"input": "input:0", "colours": "net/colours:0", "pooled": "net_colours_0"})
    onnx.save(model, colours / "model.onnx")
    names = ["input:0", "net/colours:0", "net_colours_0", "logits", "input_0"]
    scales = {name: 2.0**-i for i, name in enumerate(names)}
    (colours / "a.cache").write_text(text_from_cache(CalibrationCache("TRT-8600-EntropyCalibration2", scales)))
    return colours


def test_check_says_what_onnx_runtimes_tensorrt_provider_reads_instead(calib, colons, finished):
    assert calib("cache", "check", "a.cache", cwd=colons).code == 0  # TensorRT itself reads it
    result = calib("cache", "check", "a.cache", *FOR, cwd=colons)
    assert result.code == 1
    assert "reads 2 of 5 scales wrongly: that of 'input:0' as 0 of 'input'; calib cache convert --for" in result.err
    result = calib("cache", "check", OURS, *FOR, "--model", "model.onnx", cwd=finished)
    assert result.code == 0
    assert "onnxruntime-tensorrt: reads every scale as it is\n" in result.out


def test_convert_renames_in_the_cache_and_in_the_model_that_goes_with_it(calib, colons):
    result = calib("cache", "convert", "a.cache", "b.cache", "--model", "model.onnx", *FOR, cwd=colons)
    assert result.code == 0, result.err
    assert result.warnings == [
        "b.onnx: the model with the names of b.cache; its inputs and outputs may have others too"
    ]
    assert calib("cache", "check", "b.cache", *FOR, cwd=colons).code == 0
    before, after = read_cache(colons / "a.cache").scales, read_cache(colons / "b.cache").scales
    assert list(before.values()) == list(after.values())
    assert list(after) == ["input_0_1", "net/colours_0", "net_colours_0", "logits", "input_0"]
    images = np.random.default_rng(0).random((4, 3, 8, 8), np.float32)
    sessions = [OnnxRuntimeSession(onnx.load(colons / name)) for name in ("model.onnx", "b.onnx")]
    expected, found = (s.run({name: images})[0] for s, name in zip(sessions, ("input:0", "input_0_1"), strict=True))
    np.testing.assert_array_equal(found, expected)


def test_convert_gives_a_first_line_that_the_provider_reads(calib, finished):
    calib("run", "--algo", "percentile", "--quiet", cwd=finished)
    assert "expects 'TRT-' in the first line, found '0 3ff" in calib("cache", "check", OURS, *FOR, cwd=finished).err
    assert calib("cache", "convert", OURS, "b.cache", *FOR, cwd=finished).code == 0
    assert calib("cache", "check", "b.cache", *FOR, cwd=finished).code == 0
    assert read_cache(finished / "b.cache").scales == read_cache(finished / OURS).scales


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("a.cache", "b.cache", *FOR), "a.cache: expected the FP32 model too, found none: names with ':'"),
        (("a.cache", "model.cache", *FOR, "--model", "model.onnx"), "model.onnx: already exists, and the model with"),
        (("a.cache", "b.json", *FOR), "b.json: expected a name for TensorRT's text, which onnxruntime-tensorrt reads"),
    ],
)
def test_convert_for_the_provider_fails_with_one_line_and_writes_nothing(calib, colons, snapshot, arguments, part):
    before = snapshot(colons)
    result = calib("cache", "convert", *arguments, cwd=colons)
    assert result.code == 1
    assert part in result.error
    assert snapshot(colons) == before


def test_check_names_the_scales_of_masks(calib, colours):
    n = onnx.helper.make_node
    mask = np.array([0, -1e9, 0], np.float32).reshape(1, 3, 1, 1)
    tail = [n("Add", ["colours", "mask"], ["hidden"]), n("Relu", ["hidden"], ["features"])]
    write_model(colours / "model.onnx", after=tail, constants={"mask": mask})
    names = ["input", "colours", "hidden", "features", "pooled", "flat", "logits"]
    (colours / "a.cache").write_text(
        text_from_cache(CalibrationCache("TRT-8600-EntropyCalibration2", dict.fromkeys(names, 0.1) | {"hidden": 7.9e6}))
    )
    result = calib("cache", "check", "a.cache", "--model", "model.onnx", cwd=colours)
    assert result.code == 0, result.err
    assert "masks: 1 scales are of tensors that hold one, 'hidden' first; builds here leave them out" in result.out


def test_what_made_a_model_s_scales_is_shown_and_never_guessed(calib, finished):
    """The project was calibrated with minmax."""
    shown = calib("cache", "show", "calib-out/model.int8.onnx", cwd=finished)
    assert shown.out.startswith("calib-out/model.int8.onnx: minmax, 2 tensors")
    model = onnx.load(finished / "calib-out" / "model.int8.onnx")
    del model.metadata_props[:]  # as another tool writes it
    onnx.save(model, finished / "theirs.onnx")
    shown = calib("cache", "show", "theirs.onnx", cwd=finished)
    assert shown.out.startswith("theirs.onnx: algorithm not known, 2 tensors")
    assert json.loads(calib("cache", "show", "theirs.onnx", "--json", cwd=finished).out)["algo"] is None
    converted = calib("cache", "convert", "theirs.onnx", "theirs.cache", cwd=finished)
    assert "warning: the first line says entropy, because it must name one calibrator" in converted.err
    assert calib("cache", "convert", "theirs.onnx", "theirs.json", cwd=finished).err == ""
