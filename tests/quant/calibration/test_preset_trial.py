"""Whether FP32 answers far better after another preprocessing, on a network whose answers depend on it."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image

from quant.calibration.preset_trial import is_far_better


@pytest.mark.parametrize(
    ("won", "lost", "same", "far"),
    [
        (7, 0, 93, True),  # 2^-7 is below 0.01
        (6, 0, 94, False),  # 2^-6 is not
        (16, 1, 83, True),
        (9, 5, 86, False),
        (0, 16, 84, False),
        (7, 0, 193, False),  # beyond chance, but no five points
        (0, 0, 100, False),
    ],
)
def test_far_better_is_beyond_chance_and_five_points(won, lost, same, far):
    now = np.array([False] * won + [True] * lost + [True] * same)
    other = np.array([True] * won + [False] * lost + [True] * same)
    assert is_far_better(now, other) is far


@pytest.fixture
def pale(colours):
    """Images of grey with a little more of one colour, in half of them much more; the network takes the largest mean.

    Imagenet's means and deviations differ by channel, so that a little more of red or green is no longer the largest.
    """
    for folder in (colours / "imgs").iterdir():
        for image in folder.iterdir():
            image.unlink()
        channel = ("red", "green", "blue").index(folder.name)
        for i in range(24):
            pixels = np.full((8, 8, 3), 100, np.uint8)
            pixels[..., channel] += 100 if i % 2 else 10
            pixels[0, 0] = i  # no two files are the same
            Image.fromarray(pixels).save(folder / f"{i:02}.png")
    (colours / "calib.toml").write_text('model = "model.onnx"\ndata = "imgs"\nalgo = "minmax"\nprecision = "fp32"\n')
    return colours


def test_the_run_says_where_fp32_is_far_better_under_another_preset_and_switches_nothing(calib, pale):
    result = calib("run", "--json", cwd=pale)
    found = json.loads(result.out)
    assert found["builds"][0]["top1"] == pytest.approx(100 * (36 + 12) / 72)  # all that have much more, and pale blue
    assert found["preprocessing"]["name"] == "imagenet"
    assert "from the default; --preprocess overrides it" in result.err
    trial = found["preprocessing_trial"]
    assert (trial["images"], trial["now"], trial["right"]["imagenet"]) == (72, "imagenet", 48)
    assert trial["right"][trial["better"]] == 72
    (warning,) = [line for line in result.warnings if "nothing was switched" in line]
    assert f"72 of 72 labelled images right with --preprocess {trial['better']}, 48 with imagenet" in warning

    following = shlex.split(found["next"]["command"])
    assert following == ["calib", "run", "--preprocess", trial["better"]]
    again = json.loads(calib(*following[1:], "--json", cwd=pale).out)
    assert again["builds"][0]["top1"] == 100
    assert again["preprocessing_trial"] is None  # it was asked for


def test_where_fp32_is_right_no_other_preset_is_tried(calib, colours):
    (colours / "calib.toml").write_text('model = "model.onnx"\ndata = "imgs"\nprecision = "fp32"\n')
    assert json.loads(calib("run", "--json", cwd=colours).out)["preprocessing_trial"] is None
