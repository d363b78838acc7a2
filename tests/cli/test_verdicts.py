"""What whole runs conclude of models that give other things than logits."""

import h5py
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
MEANS = {"blue": (20, 30, 200), "green": (30, 190, 20), "red": (210, 20, 30)}
REVERSED = np.eye(3, dtype=np.float32)[::-1]  # RGB to the alphabetical order of the colours


@pytest.fixture
def project(colours, save_graph):
    """Makes the colour project's model another one: nodes that go on from the mean colours `flat` [N, 3]."""

    def make(nodes, outputs, constants=None, product=REVERSED):
        def value(name, shape, kind=FLOAT):
            return helper.make_tensor_value_info(name, kind, shape)

        first = [
            helper.make_node("Conv", ["input", "product"], ["features"], name="conv"),
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
        ]
        product = np.asarray(product, np.float32)
        arrays = {"product": product.reshape(*product.shape[:2], 1, 1), **(constants or {})}
        graph = helper.make_graph(
            [*first, *(helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes)],
            "graph",
            [value("input", ["N", 3, 8, 8])],
            [value(name, *shape) for name, shape in outputs.items()],
            [
                numpy_helper.from_array(np.asarray(array, None if hasattr(array, "dtype") else np.float32), name)
                for name, array in arrays.items()
            ],
        )
        save_graph(graph, colours / "model.onnx")
        return colours

    return make


@pytest.fixture
def concluded(calib, report):
    """Runs a project and returns the outcome and the report, after checks that hold whatever was concluded."""

    def run(project, *options):
        result = calib("run", "--quiet", *options, cwd=project)
        found = report(project)
        assert result.code == found["exit_code"], result.err
        assert (project / "calib-out" / "calibration.cache").is_file()
        assert "INT8 runs;" not in found["reason"]
        return result, found

    return run


def flattened(project):
    """Puts all images into one folder, without labels."""
    for path in sorted((project / "imgs").rglob("*.png")):
        path.rename(project / "imgs" / f"{path.parent.name}{path.name}")
    for name in MEANS:
        (project / "imgs" / name).rmdir()
    return project


def int8_of(found):
    return next(row for row in found["builds"] if row["precision"] == "int8")


def first_line(project):
    return (project / "calib-out" / "report.md").read_text().splitlines()[0]


def detector(project, *, apart):
    """Boxes in pixels that no product gives, and scores: small ones everywhere, and a large one in each image."""
    nodes = [
        ("Reshape", ["features", "shape"], ["scores_wide"]),
        ("ReduceMean", ["input"], ["grey"], {"axes": [1]}),
        ("Concat", ["input", "grey"], ["boxes_map"], {"axis": 1}),
        ("Add", ["boxes_map", "one"], ["boxes_moved"]),
        ("Mul", ["boxes_moved", "pixels"], ["boxes_scaled"]),
        ("Reshape", ["boxes_scaled", "shape_of_boxes"], ["boxes_wide"]),
    ]
    constants = {
        "one": np.float32(1),
        "pixels": np.float32(300),
        "shape": np.array([0, 3, 64]),
        "shape_of_boxes": np.array([0, 4, 64]),
    }
    if apart:
        nodes += [("Identity", ["boxes_wide"], ["boxes"]), ("Identity", ["scores_wide"], ["scores"])]
        outputs = {"boxes": (["N", 4, 64],), "scores": (["N", 3, 64],)}
    else:
        nodes.append(("Concat", ["boxes_wide", "scores_wide"], ["found"], {"axis": 1}))
        outputs = {"found": (["N", 7, 64],)}
    folder = flattened(project(nodes, outputs, constants))
    generator = np.random.default_rng(0)
    for path in sorted((folder / "imgs").iterdir()):
        pixels = generator.integers(0, 12, (8, 8, 3), np.uint8)
        pixels[tuple(generator.integers(0, 8, 2))] = 250
        Image.fromarray(pixels).save(path)
    return folder


@pytest.mark.parametrize("apart", [True, False])
def test_a_detector_whose_scores_are_lost_is_unfit_however_good_its_boxes_are(concluded, project, apart):
    folder = detector(project, apart=apart)
    lossy = ("--algo", "percentile", "--percentile", "98")  # the large ones are 1 in 64
    result, found = concluded(folder, *lossy, "--recover", "off")
    assert (result.code, found["verdict"], found["chosen"]) == (0, "fail", "fp16")
    worst, *_ = int8_of(found)["outputs"]
    assert worst["worst_db"] < 10 < int8_of(found)["sqnr_db"]
    assert worst["name"] == ("scores" if apart else "found")
    if not apart:
        assert (worst["groups"][0]["first"], worst["groups"][0]["last"]) == (4, 6)
    assert "INT8 is unfit: output '" in found["reason"]
    better = found["better_algorithm"]
    assert better["sqnr_db"] > better["now_db"] + 3
    assert any(text.startswith(f"--algo {better['algo']} serves the outputs better") for text in result.warnings)
    again, better_found = concluded(folder, "--algo", better["algo"])
    assert (again.code, better_found["verdict"]) == (0, "unlabelled")
    assert int8_of(better_found)["outputs"][0]["worst_db"] > 10


@pytest.mark.parametrize("apart", [True, False])
def test_a_detector_whose_scores_are_lost_recovers_by_other_scales(concluded, project, apart):
    folder = detector(project, apart=apart)
    result, found = concluded(folder, "--algo", "percentile", "--percentile", "98")
    assert (result.code, found["verdict"]) == (0, "unlabelled")
    assert int8_of(found)["outputs"][0]["worst_db"] > 20
    recovery = found["recovery"]
    assert (recovery["used"], recovery["met"]) == (True, False)  # without labels nothing is claimed
    assert "ranges" in [step["step"] for step in recovery["steps"] if step["kept"]]
    assert recovery["int8_share"] == 100
    assert found["better_algorithm"] is None
    names = ("recovered.onnx", "recovered.cache", "recovered.json", "recovered.h5")
    assert all((folder / "calib-out" / name).is_file() for name in names)
    concluded(folder, "--algo", recovery["algo"])
    assert not any((folder / "calib-out" / name).exists() for name in names)  # they belong to no build any more


NEAR = {  # nodes that answer, outputs, constants; each is right on all images
    "argmax": ([("ArgMax", ["flat"], ["y"], {"axis": 1, "keepdims": 0})], {"y": (["N"], INT64)}, {}),
    "argmax, kept": ([("ArgMax", ["flat"], ["y"], {"axis": 1, "keepdims": 1})], {"y": (["N", 1], INT64)}, {}),
    "softmax": ([("Mul", ["flat", "ten"], ["z"]), ("Softmax", ["z"], ["y"])], {"y": (["N", 3],)}, {"ten": 10.0}),
    "sigmoids": ([("Sigmoid", ["flat"], ["y"])], {"y": (["N", 3],)}, {}),
    "open axis": ([("Identity", ["flat"], ["y"])], {"y": (["N", "classes"],)}, {}),
    "images last": (
        [("Unsqueeze", ["flat", "axis"], ["z"]), ("Transpose", ["z"], ["y"], {"perm": [1, 0, 2]})],
        {"y": ([1, "N", 3],)},
        {"axis": np.array([1])},
    ),
    "beside features": (
        [("Identity", ["flat"], ["y"]), ("Flatten", ["features"], ["z"])],
        {"z": (["N", 192],), "y": (["N", 3],)},
        {},
    ),
}


@pytest.mark.parametrize("kind", NEAR)
def test_labels_count_wherever_the_model_answers_classes(concluded, project, kind):
    result, found = concluded(project(*NEAR[kind]))
    assert (result.code, found["verdict"]) == (0, "pass")
    assert [row["top1"] for row in found["builds"]] == [100, 100, 100]
    assert found["data"]["evaluation"]["images"] == 12
    assert not any("labels" in text for text in result.warnings)


@pytest.mark.parametrize(
    "kind", [pytest.param("argmax", marks=pytest.mark.charts), "softmax", "open axis", "images last", "beside features"]
)
def test_labels_at_chance_show_nothing_and_end_with_exit_4(concluded, project, kind):
    folder = project(*NEAR[kind])
    for path in sorted((folder / "imgs").rglob("*.png")):  # each class gets as many images of each colour
        path.rename(path.with_name(f"{path.parent.name}{path.name}"))
    for i, path in enumerate(sorted((folder / "imgs").rglob("*.png"))):
        path.rename(folder / "imgs" / sorted(MEANS)[i % 3] / f"new{path.name}")
    (folder / "eval").symlink_to(folder / "imgs")
    result, found = concluded(folder, "--eval", "eval")
    assert (result.code, found["verdict"]) == (4, "invalid")
    assert found["builds"][0]["top1"] == pytest.approx(100 / 3, abs=0.01)
    assert "near chance (33.33 %)" in found["reason"]
    assert first_line(folder) == "# INT8 calibration: invalid, nothing was shown"
    lines = result.out.splitlines()
    assert "invalid: FP32 reaches 33.33 % top-1 on 36 images, near chance, so nothing was shown." in lines
    assert sum(line.startswith("nothing was shown: FP32 top-1 is 33.33 %") for line in lines) == 1
    assert "use INT8" not in result.out


@pytest.mark.charts
def test_images_without_labels_are_told_by_agreement_and_the_worst_output(concluded, project):
    folder = flattened(project([("Identity", ["flat"], ["logits"])], {"logits": (["N", 3],)}))
    result, found = concluded(folder)
    assert (result.code, found["verdict"]) == (0, "unlabelled")
    row = int8_of(found)
    assert row["agreement"] == 100
    assert row["agreement_ci95"] == [pytest.approx(75.75, abs=0.01), 100]  # Wilson's interval of 12 in 12
    assert [output["name"] for output in row["outputs"]] == ["logits"]
    assert f"INT8 has the lowest SQNR, {row['outputs'][0]['worst_db']:.1f} dB, in output 'logits'." in result.out
    assert "use INT8" not in result.out + first_line(folder)


def two_folders(folder):
    """Leaves the folders blue and red."""
    for path in (folder / "imgs" / "green").iterdir():
        path.unlink()
    (folder / "imgs" / "green").rmdir()
    return folder


@pytest.mark.parametrize("after_sigmoid", [True, False])
@pytest.mark.parametrize("shape", [["N", 1], ["N"]])
def test_one_output_with_two_folders_is_a_threshold(concluded, project, after_sigmoid, shape):
    nodes = [
        ("Gemm", ["flat", "to_score"], ["score"]),
        ("Sigmoid" if after_sigmoid else "Identity", ["score"], ["wide"]),
        ("Reshape", ["wide", "shape"], ["y"]),
    ]
    constants = {"to_score": np.array([[-4], [0], [4]], np.float32), "shape": np.array([-1, 1][: len(shape)])}
    folder = two_folders(project(nodes, {"y": (shape,)}, constants))
    result, found = concluded(folder, "--num-images", "12")
    assert (result.code, found["verdict"]) == (0, "pass")
    assert [row["top1"] for row in found["builds"]] == [100, 100, 100]
    assert found["data"]["evaluation"]["images"] == 12


def test_time_before_images_is_compared_by_images(concluded, project):
    nodes = [
        ("Reshape", ["features", "rows"], ["r"]),
        ("Transpose", ["r"], ["y"], {"perm": [2, 0, 1]}),  # [T, N, C]
    ]
    folder = project(nodes, {"y": ([64, "N", 3],)}, {"rows": np.array([0, 3, 64])})
    result, found = concluded(folder)
    assert (result.code, found["verdict"]) == (0, "unlabelled")
    assert found["data"]["evaluation"]["images"] == 12
    assert int8_of(found)["sqnr_db"] > 30
    assert "of 12 unlabelled images" not in result.out  # no classes, so no agreement
    assert "expected labels" in result.warnings[0]


VARYING = {
    "nms": (
        # Places of pixels that are bright enough, over all images: [3, M] after Slice.
        [
            ("Greater", ["features", "limit"], ["bright"]),
            ("NonZero", ["bright"], ["places"]),
            ("Transpose", ["places"], ["y"]),
        ],
        {"y": (["M", 4], INT64)},
        {"limit": np.float32(0.75)},
        "output 'y' is not compared: its size depends on the images",
    ),
    "scalar": ([("ReduceMax", ["flat"], ["y"], {"keepdims": 0})], {"y": ([],)}, {}, "it is a single number"),
    "texts": (
        [
            ("ArgMax", ["flat"], ["i"], {"axis": 1, "keepdims": 0}),
            ("Gather", ["names", "i"], ["y"]),
        ],
        {"y": (["N"], TensorProto.STRING)},
        {"names": np.array(["blue", "green", "red"], object)},
        "it holds texts",
    ),
}


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("kind", VARYING)
def test_what_cannot_be_compared_is_named_and_int8_is_written_all_the_same(concluded, project, kind, beside):
    nodes, outputs, constants, said = VARYING[kind]
    if beside:
        nodes, outputs = [*nodes, ("Identity", ["flat"], ["logits"])], {**outputs, "logits": (["N", 3],)}
    folder = project(nodes, outputs, constants)
    result, found = concluded(folder)
    assert any(said in text for text in result.warnings)
    assert (result.code, found["verdict"]) == (0, "pass" if beside else "unlabelled")
    assert found["failed_builds"] == []
    assert (folder / "calib-out" / "model.int8.onnx").is_file()
    assert [output["name"] for output in int8_of(found)["outputs"]] == (["logits"] if beside else [])
    assert "use INT8" not in result.out or beside


@pytest.mark.parametrize("features", [16, 3])
def test_an_embedding_of_persons_in_folders_is_compared_without_labels(concluded, project, features):
    folder = project(
        [("Identity", ["flat"], ["y"])], {"y": (["N", features],)}, product=np.ones((features, 3)) * REVERSED[0]
    )
    if features == 3:  # as many persons as features would be taken for classes
        (folder / "imgs" / "green").rename(folder / "imgs" / "other")
        two = folder / "imgs" / "one more"
        two.mkdir()
        next((folder / "imgs" / "red").iterdir()).rename(two / "x.png")
    result, found = concluded(folder)
    assert (result.code, found["verdict"]) == (0, "unlabelled")
    assert int8_of(found)["top1"] is None
    assert any("the labels are not used" in text for text in result.warnings)


@pytest.mark.parametrize("labels", [pytest.param("folders", marks=pytest.mark.charts), "numbers"])
def test_a_regression_is_judged_by_its_metric_alone(concluded, project, labels):
    folder = project([("Gemm", ["flat", "to_one"], ["y"])], {"y": (["N", 1],)}, {"to_one": np.ones((3, 1), np.float32)})
    (folder / "mine.py").write_text("def closeness(outputs, labels):\n    return 10 - abs(outputs['y'][:, 0] - 0.9)\n")
    options = ["--metric", "mine.py:closeness"]
    if labels == "numbers":
        names = sorted(path.relative_to(folder / "imgs").as_posix() for path in (folder / "imgs").rglob("*.png"))
        rows = [f"{name},{20 + i}" for i, name in enumerate(names)]
        (folder / "ages.csv").write_text("\n".join(["file,label", *rows]) + "\n")
        options += ["--labels", "ages.csv"]
    result, found = concluded(folder, *options)
    assert (result.code, found["verdict"]) == (0, "pass")
    assert found["metric"]["builds"][0]["score"] > 9
    assert found["builds"][0]["top1"] is None


def test_a_metric_gets_the_numbers_of_the_labels_themselves(concluded, project, calib):
    """As class names in alphabetical order, 9.5 would come behind 10.5."""
    folder = project([("Gemm", ["flat", "to_one"], ["y"])], {"y": (["N", 1],)}, {"to_one": np.ones((3, 1), np.float32)})
    names = sorted(path.relative_to(folder / "imgs").as_posix() for path in (folder / "imgs").rglob("*.png"))
    (folder / "ages.csv").write_text("file,label\n" + "".join(f"{name},{9.5 + i}\n" for i, name in enumerate(names)))
    lines = ["NAMES = " + repr(names), "def right(outputs, labels, names):", "    import numpy as np"]
    lines.append("    return np.array([label == 9.5 + NAMES.index(n) for label, n in zip(labels, names)], float)")
    (folder / "mine.py").write_text("\n".join(lines) + "\n")
    result, found = concluded(folder, "--labels", "ages.csv", "--metric", "mine.py:right")
    assert (result.code, found["verdict"]) == (0, "pass")
    assert [build["score"] for build in found["metric"]["builds"]] == [1.0] * len(found["metric"]["builds"])
    result = calib("run", "--quiet", "--labels", "ages.csv", cwd=folder)
    assert result.code == 4  # without the metric the numbers are what the only output is held against
    assert "FP32's mean absolute error is " in result.out and "always answering the median" in result.out
    result = calib("pack", "imgs", "p.h5", "--labels", "ages.csv", cwd=folder)
    assert result.code == 1
    assert "expected labels that are class names or indices, which a pack holds" in result.error
    assert not (folder / "p.h5").exists()


def test_confidence_in_the_report_is_the_softmax_s_own(concluded, project):
    _, found = concluded(project(*NEAR["softmax"]))
    # Mean colours of 0.8 against 0.1: a softmax of 10 times that is above 0.98; applied twice, it would be 0.57.
    assert found["reliability"][0]["ece"] < 3


@pytest.mark.parametrize("command", ["run", pytest.param("compare", marks=pytest.mark.charts)])
def test_nan_in_an_evaluated_image_is_named_and_the_verdict_is_no_pass(calib, finished, report, command):
    rows = np.zeros((30, 3, 8, 8), np.float32)
    for i in range(30):
        rows[i, i % 3] = 0.1 + 0.8 * (i + 1) / 30
    order = np.array([2, 1, 0])[np.arange(30) % 3]
    for name, bad in (("sound.h5", None), ("bad.h5", 7)):
        spoiled = rows.copy()
        if bad is not None:
            spoiled[bad, 0, 0, 0] = np.nan
        with h5py.File(finished / name, "w") as file:
            file["input"], file["labels"], file["names"] = spoiled, order, [f"row{i}" for i in range(30)]
    options = ["--data", "sound.h5", "--eval", "bad.h5"]
    if command == "compare":
        options = ["model.onnx", "calib-out/model.int8.onnx", "--eval", "bad.h5", "--out", "calib-out"]
    result = calib(command, "--quiet", *options, cwd=finished)
    assert result.code == 4, result.err
    told = "image 'row7' holds NaN, or FP32 answers with NaN: nothing is shown with them"
    assert any(line.startswith(told) for line in result.warnings)
    assert sum(told in line for line in result.warnings) == 1
    assert report(finished)["verdict"] == "invalid"
    assert told in report(finished)["reason"]
