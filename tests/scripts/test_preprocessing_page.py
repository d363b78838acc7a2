"""docs/preprocessing.md agrees with the code: its keys, their defaults, its presets and its recipes."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest

from datasets import Preprocessing
from datasets.preprocessing import PRESETS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "preprocessing.md").read_text(encoding="utf-8")


def rows(heading):
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `[\w-]+` \|.*$", section, re.M)
    return {
        cells[0].strip("` "): cells for line in lines for cells in [[c.strip() for c in line.strip("|").split(" | ")]]
    }


KEYS = rows("Keys of the TOML file")
FIELDS = {field.name: field for field in fields(Preprocessing)}


def test_every_key_has_its_row_in_order():
    assert list(KEYS) == ["preset", *FIELDS]


@pytest.mark.parametrize("name", FIELDS)
def test_the_defaults_are_those_of_the_code(name):
    default, shown = FIELDS[name].default, KEYS[name][2]
    assert default is not MISSING
    if default is None or name == "name":
        assert not shown.startswith("`")
    else:
        value = list(default) if isinstance(default, tuple) else default
        assert (
            shown == {True: "`true`", False: "`false`"}.get(value, f'`"{value}"`')
            if isinstance(value, bool | str)
            else (f"`{value}`")
        )


def test_every_choice_is_named():
    from datasets.preprocessing.description import _OPTIONS

    for key, options in _OPTIONS.items():
        for option in options:
            assert f"`{option}`" in KEYS[key][3] or f'`"{option}"`' in KEYS[key][2], (key, option)


def test_every_preset_has_its_row_with_its_figures():
    table = rows("Presets")
    assert list(table) == list(PRESETS)
    for name, preset in PRESETS.items():
        size, colour, becomes = table[name][1:4]
        assert colour == preset.color
        assert size.startswith(
            {"crop": "scaled and cropped", "stretch": "stretched", "letterbox": "letterbox"}[preset.resize]
        )
        assert ("224 of 256" in size) == (preset.resize == "crop" and preset.crop_fraction == 0.875)
        bound = preset.bound_to([None, 3, 8, 8], "float32")
        pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
        np.testing.assert_allclose(bound(pixels), by_formula(becomes, pixels.transpose(2, 0, 1)), atol=1e-6)


def by_formula(becomes, p):
    """The page's formula, computed."""
    formula, *figures = becomes.split(", ")
    named = {words.split()[0]: np.array([float(w) for w in words.split()[1:]]).reshape(3, 1, 1) for words in figures}
    return eval(formula, {"p": p.astype(np.float64), **named})


RECIPES = re.findall(r"^```toml\n(.*?)^```", TEXT, re.M | re.S)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_read_and_can_be_used(tmp_path, recipe):
    (tmp_path / "p.toml").write_text(recipe)
    described = Preprocessing.from_spec(str(tmp_path / "p.toml"))
    dtype = "uint8" if 'preset = "raw"' in recipe else "float32"
    bound = described.bound_to([None, described.channels, 8, 8], dtype)
    assert bound(np.zeros((20, 30, 3), np.uint8)).shape == (described.channels, 8, 8)


def test_the_recipes_do_what_they_say(tmp_path):
    def made(words, pixels, dtype="float32"):
        (recipe,) = [text for text in RECIPES if all(word in text for word in words)]
        (tmp_path / "p.toml").write_text(recipe)
        described = Preprocessing.from_spec(str(tmp_path / "p.toml"))
        return described.bound_to([None, described.channels, 8, 8], dtype)(pixels)

    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    assert made(['"bgr"'], red)[:, 0, 0].tolist() == [-104, -117, 77]
    assert made(['"raw"'], red, "uint8")[:, 0, 0].tolist() == [200, 0, 0]
    assert made(["4095"], np.full((8, 8, 1), 4095, np.uint16)).max() == 1
    assert made(["-1000"], np.full((8, 8, 1), -300.0, np.float32)).max() == pytest.approx(0.5)
    assert made(["65535"], np.full((8, 8, 1), 54321, np.uint16)).max() == pytest.approx(54321)
    assert made(['"rgba"'], np.full((8, 8, 4), 51, np.uint8))[3].max() == pytest.approx(0.2)


def test_the_function_of_the_page_gives_an_input(tmp_path):
    (example,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    from quant.calibration.own_preprocessing import own_preprocessing

    (tmp_path / "prepare.py").write_text(example)
    bound = own_preprocessing(f"{tmp_path / 'prepare.py'}:prepare").bound_to(["N", 1, 8, 8], "float32")
    assert bound.fitted(np.full((16, 16, 3), 255, np.uint8)).max() == 1
