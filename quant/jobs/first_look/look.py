"""`calib init`: looks at a model and its data, and writes a configuration that says how it was guessed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calib.files import Transaction
from calib.texts import wrapped
from datasets import ImageSource, Preprocessing
from quant.calibration.preprocessing_choice import metadata_of
from quant.errors import SettingsError
from quant.jobs.first_look.fitting_preprocessing import FoundPreprocessing
from quant.jobs.first_look.project import CLASSES_NAME, OPEN, Guess, find_data, find_labels, find_model
from quant.jobs.first_look.trial import fitting_preprocessing
from quant.progress import Console, RecordingConsole
from quant.settings.calib_toml import CONFIG_NAME

PREPROCESS_NAME = "preprocess.toml"
_WIDTH = 100  # of comments


@dataclass(frozen=True)
class FirstLook:
    """What was found.

    Attributes:
        guesses: Keys of calib.toml, and what has no key.
        preprocessing: What `preprocess.toml` describes; None where the data holds the model's inputs.
        files: Contents of the files to write, by name; those that are there already are not among them.
    """

    guesses: tuple[Guess, ...]
    preprocessing: FoundPreprocessing | None
    files: Mapping[str, str]

    @property
    def questions(self) -> list[str]:
        """What only the user can say."""
        return [f"{guess.key}: {guess.because}" for guess in self.guesses if guess.certainty == OPEN]


def look(
    folder: Path,
    *,
    model: Path | None = None,
    data: Path | None = None,
    console: Console | None = None,
) -> FirstLook:
    """Look at a folder; nothing is written.

    Args:
        folder: The working folder.
        model: The model; None for the only one in the folder.
        data: The images; None for the only ones in the folder.
        console: Where progress goes.

    Raises:
        SettingsError: No model or no images, or several that nothing tells apart.
        ModelError, DatasetError: They cannot be used.
    """
    listener = RecordingConsole(console)
    loaded, of_model = find_model(folder, model)
    metadata, inputs = metadata_of(loaded), [info.name for info in loaded.inputs]
    source, of_data = find_data(folder, data, inputs)
    place = data if data is not None else folder / str(of_data[0].value)
    candidates = find_labels(folder, source, place, inputs, metadata)
    found, labels = None, candidates[0]
    if isinstance(labels.source, ImageSource) and len(loaded.inputs) == 1:
        found, labels = fitting_preprocessing(folder, loaded, labels.source, candidates, listener)
    files: dict[str, str] = {}
    guesses = [of_model, *of_data, *labels.guesses]
    if labels.order is not None:
        files[CLASSES_NAME] = "".join(f"{name}\n" for name in labels.order)
    if found is not None:
        guesses.append(Guess("preprocess", PREPROCESS_NAME, found.because, found.certainty))
        files[PREPROCESS_NAME] = _preprocess_toml(found)
    elif isinstance(labels.source, ImageSource):
        names = ", ".join(info.name for info in loaded.inputs)
        because = (
            f"the model has {len(loaded.inputs)} inputs ({names}), and images are one: say those that are the same for "
            'every image, as input = ["NAME=VALUE"], or give all as HDF5'
        )
        guesses.append(Guess("input", None, because, OPEN))
    files[CONFIG_NAME] = _calib_toml(guesses)
    if found is not None and found.resize_untold:
        guesses.append(Guess("resize", found.preprocessing.resize, found.resize_untold, OPEN))
    return FirstLook(tuple(guesses), found, files)


def write_first_look(found: FirstLook, folder: Path) -> list[Path]:
    """Write the files, all or none; gives their paths.

    Raises:
        SettingsError: One is there already: nothing is ever overwritten.
        OutputError: They cannot be written.
    """
    there = [name for name in found.files if (folder / name).exists()]
    if there:
        raise SettingsError(
            f"{folder / there[0]}: is there already, and init overwrites nothing; move it away, or give --look to "
            "see what would be written"
        )
    with Transaction(folder) as files:
        for name, text in found.files.items():
            files.stage(name).write_text(text, encoding="utf-8")
    return [folder / name for name in found.files]


def text_from_first_look(found: FirstLook, width: int | None = None) -> str:
    """The guesses and how sure they are, for a terminal of so many columns."""
    lines = []
    for guess in found.guesses:
        value = "" if guess.value is None else f" {guess.value}"
        lines += wrapped(f"{guess.key}:{value} ({guess.certainty}: {guess.because})", width)
    return "\n".join(lines)


def _calib_toml(guesses: list[Guess]) -> str:
    lines = ["# Settings of `calib run` in this folder, as `calib init` found them; options override them."]
    for guess in guesses:
        note = f"{guess.certainty}: {guess.because}" if guess.value is not None else f"{guess.key}: {guess.because}"
        lines += ["", *_comment(note)]
        if guess.value is not None:
            lines.append(f"{guess.key} = {_text(guess.value)}")
    return "\n".join(
        [
            *lines,
            "",
            "# How much INT8 may lose, in percentage points; `calib run` ends with exit code 3 above it.",
            "max_drop = 1.0",
            "",
            '# algo = "entropy"          # or minmax, percentile, mse: calib sweep tries all of them',
            "# num_images = 512          # that calibrate; the others are evaluated",
            '# eval = "other-images"     # what is evaluated instead',
            "",
        ]
    )


def _preprocess_toml(found: FoundPreprocessing) -> str:
    """The description, with the candidates that were tried."""
    fields = {key: value for key, value in found.preprocessing.to_dict().items() if value is not None}
    usual = Preprocessing().to_dict()
    lines = ["# How an image becomes the model's input: (pixel * scale - mean) / std, as `calib init` found it."]
    lines += _comment(f"{found.certainty}: {found.because}.")
    if found.right:
        lines += ["#", f"# Of {found.images} labelled images, FP32 answers right:"]
        lines += [f"#   {count:4}  {name}" for name, count in sorted(found.right.items(), key=lambda item: -item[1])]
    if found.resize_untold:
        lines += ["#", *_comment(f"A question, resize: {found.resize_untold}")]
    lines.append("")
    always = ("resize", "color", "scale", "mean", "std")
    for key in [*always, *(key for key in fields if key not in (*always, "name") and fields[key] != usual[key])]:
        value = fields[key]
        shown = f"[{', '.join(_text(item) for item in value)}]" if isinstance(value, list) else _text(value)
        lines.append(f"{key} = {shown}{_REMARKS.get(key, '')}")
    return "\n".join([*lines, ""])


_REMARKS = {
    "resize": "  # crop, stretch, letterbox, none",
    "color": "  # rgb, bgr, grey",
}


def _text(value: object) -> str:
    """A value as TOML; JSON's texts, numbers and booleans are TOML too."""
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in wrapped(text[:1].upper() + text[1:], _WIDTH)]
