"""`calib init`: looks at a model and its data, and writes a configuration that says how it was guessed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from calib.files import Transaction
from calib.texts import wrapped
from datasets import ImageSource, Preprocessing, open_source
from quant.calibration.preprocessing_choice import metadata_of
from quant.calibration.run_data import RunData
from quant.errors import SettingsError
from quant.jobs.first_look.fitting_preprocessing import (
    FoundPreprocessing,
    fitting_candidates,
    said_preprocessing,
    tried_preprocessing,
    untold_resize,
    usual_preprocessing,
)
from quant.jobs.first_look.project import OPEN, SURE, Guess, find_data, find_labels, find_model, labels_file
from quant.jobs.measurement import first_batch, read_outputs
from quant.onnx_graph.model import OnnxModel
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.progress import Console, RecordingConsole
from quant.settings.calib_toml import CONFIG_NAME
from quant.settings.run_settings import RunSettings

PREPROCESS_NAME = "preprocess.toml"
_CLASSES_NAME = "classes.txt"
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
    source, of_labels = find_labels(folder, source, place, inputs, metadata)
    files: dict[str, str] = {}
    names = source.class_names
    if metadata.names is not None and names is not None and names != metadata.names and {*names} == {*metadata.names}:
        files[_CLASSES_NAME] = "".join(f"{name}\n" for name in metadata.names)
        of_labels = [guess for guess in of_labels if guess.key != "classes"]
        of_labels.append(Guess("classes", _CLASSES_NAME, "the order in the model's metadata", SURE))
        source = open_source(place, labels=labels_file(of_labels, folder), classes=metadata.names, inputs=inputs)
    guesses = [of_model, *of_data, *of_labels]
    found = None
    if isinstance(source, ImageSource) and len(loaded.inputs) == 1:
        found = _preprocessing(folder, loaded, source, listener)
        guesses.append(Guess("preprocess", PREPROCESS_NAME, found.because, found.certainty))
        files[PREPROCESS_NAME] = _preprocess_toml(found)
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


def _preprocessing(folder: Path, model: OnnxModel, source: ImageSource, console: Console) -> FoundPreprocessing:
    said = said_preprocessing(model, metadata_of(model), source, folder)
    if said is not None:
        return said
    found = _guessed_preprocessing(model, source, console)
    return replace(found, resize_untold=untold_resize(found.preprocessing, model, source))


def _guessed_preprocessing(model: OnnxModel, source: ImageSource, console: Console) -> FoundPreprocessing:
    if source.labels is None:
        return usual_preprocessing(model)
    candidates = fitting_candidates(model)
    if not candidates:
        raise SettingsError(
            f"{model.path}: no preset fits its input {list(model.inputs[0].shape)}; write preprocess.toml"
        )
    info = model.inputs[0]
    bound = next(iter(candidates.values())).bound_to(info.shape, info.dtype)
    everything = np.arange(len(source))
    data = RunData(source, everything[:0], source, everything, bound, input_name=info.name)
    settings = RunSettings(model=model.path, data=source.path)
    with contextlib.closing(OnnxRuntimeBackend()) as backend:
        runnable = backend.build(model, "fp32").runnable
        reader, problem = read_outputs(model, runnable, first_batch(data, settings), data, console)
        if problem:
            console.warn(problem)
        tried = tried_preprocessing(data, settings, model, runnable, reader)
    return usual_preprocessing(model) if tried is None else tried


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
