"""What a folder shows of a project: its model, its images, their labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calib.errors import CalibrationError
from calib.regular_files import text_of_file
from datasets import DatasetError, open_source
from datasets.boxes.opening import has_split, is_data_yaml
from datasets.labels.class_labels import are_labelled
from datasets.packs.pack import SUFFIXES
from datasets.source import AnySource, BoxSource
from quant.errors import SettingsError
from quant.onnx_graph.metadata import ModelMetadata
from quant.onnx_graph.model import OnnxModel, is_quantized, load_model
from quant.settings.output_names import REPORT_JSON, SWEEP_JSON

SURE, LIKELY, OPEN = "sure", "likely", "a question"
_OURS = (".int8.onnx", ".fp16.onnx", ".fp32.onnx")  # what runs write
_TO_CALIBRATE = ("calib", "train", "imgs", "images", "data")
_TO_EVALUATE = ("val", "valid", "validation", "test", "eval")
_DATA_YAML = "data.yaml"  # as Ultralytics calls it, in the folder of the images
CLASSES_NAME = "classes.txt"
_CLASS_FILES = (CLASSES_NAME, "labels.txt", "names.txt")
_MOST_BYTES = 1 << 16
_MOST_TABLES = 20  # that are tried: each reads the names of all images


@dataclass(frozen=True)
class Guess:
    """What was found for a key of calib.toml.

    Attributes:
        key: The key.
        value: Its value; None where there is none to give.
        because: How it was found.
        certainty: How sure that is: `SURE`, `LIKELY`, or `OPEN` where the user should say it.
    """

    key: str
    value: str | None
    because: str
    certainty: str


def find_model(folder: Path, given: Path | None) -> tuple[OnnxModel, Guess]:
    """The float model in a folder.

    Raises:
        SettingsError: There is none, or more than one.
        ModelError: It cannot be read.
    """
    if given is not None:
        return load_model(given), Guess("model", str(given), "given", SURE)
    found = [path for path in sorted(folder.glob("*.onnx")) if not path.name.endswith(_OURS)]
    models = {path: load_model(path) for path in found}
    floats = {path: model for path, model in models.items() if not is_quantized(model.graph)}
    if len(floats) != 1:
        listed = f"{len(floats)}: {', '.join(path.name for path in list(floats)[:8])}" if floats else "none"
        raise SettingsError(f"model: expected one float *.onnx in {folder.absolute()}, found {listed}; give --model")
    ((path, model),) = floats.items()
    others = len(found) - 1
    why = "the only *.onnx here" if not others else "the only *.onnx here that is not quantized"
    return model, Guess("model", path.name, why, SURE)


def find_data(folder: Path, given: Path | None, inputs: list[str]) -> tuple[AnySource, list[Guess]]:
    """The images in a folder, and others to evaluate where their names say so.

    Raises:
        SettingsError: There are none, or several, and no name tells them apart.
        DatasetError: They cannot be used.
    """
    if given is not None:
        return open_source(given, inputs=inputs), [Guess("data", str(given), "given", SURE)]
    here = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and not _is_ours(path)]
    described = [path for path in here if is_data_yaml(path)]
    described = described or [path / _DATA_YAML for path in here if (path / _DATA_YAML).is_file()]
    places = described or [path for path in here if _may_hold_images(path)]
    sources: dict[Path, AnySource] = {}
    for path in places:
        try:
            sources[path] = open_source(path, inputs=inputs)
        except DatasetError:  # a folder of something else
            continue
    named = _by_name(list(sources))
    if not sources or (len(sources) > 1 and named is None):
        listed = f"{len(sources)}: {', '.join(path.name for path in list(sources)[:8])}" if sources else "none"
        raise SettingsError(
            f"data: expected one folder of images, data.yaml or HDF5 pack in {folder.absolute()}, found {listed}; give "
            "--data"
        )
    if named is None:
        (path,) = sources
        name = _relative(path, folder)
        found = [Guess("data", name, "the only images here", SURE)]
        if is_data_yaml(path) and has_split(path, "val"):
            found.append(Guess("eval", None, f"the val of {name} is evaluated", SURE))
        return sources[path], found
    calibrating, evaluating = named
    return sources[calibrating], [
        Guess("data", calibrating.name, "by its name", LIKELY),
        Guess("eval", evaluating.name, "by its name", LIKELY),
    ]


@dataclass(frozen=True)
class FoundLabels:
    """What may be the labels of the images.

    Attributes:
        source: The images with these labels.
        guesses: What calib.toml is to say of them: the labels first, then the order of the classes if it is told.
        order: The classes in the order of the model's metadata, where a file with them is needed; else None.
    """

    source: AnySource
    guesses: tuple[Guess, ...]
    order: tuple[str, ...] | None = None

    @property
    def table(self) -> str | None:
        """The file of labels; None where folders or nothing are the labels."""
        return next((guess.value for guess in self.guesses if guess.key == "labels"), None)


def find_labels(
    folder: Path, source: AnySource, data: Path, inputs: list[str], metadata: ModelMetadata
) -> list[FoundLabels]:
    """All that may be the labels of images: what their folders say, then files beside them; at least one item.

    Where a file has the classes' order, they have it. Whether an output of the model answers them is not looked at.
    """
    if isinstance(source, BoxSource):
        return [FoundLabels(source, (Guess("labels", None, source.text, SURE),))]
    boxed = _boxed(folder, data, inputs) if source.labels is None and data.is_dir() else None
    if boxed is not None:
        path, source = boxed
        return [FoundLabels(source, (Guess("labels", _relative(path, folder), source.text, SURE),))]
    found = []
    if source.labels is not None:
        because = f"folders of {data.name} are {_classes(source)} classes"
        found.append((source, Guess("labels", None, because, SURE)))
    for path in _tables(folder, data) if data.is_dir() else ():
        try:
            labelled = open_source(data, labels=path, inputs=inputs)
        except DatasetError:  # a table of something else
            continue
        found.append((labelled, Guess("labels", _relative(path, folder), *_how_read(labelled, path))))
    if not found:
        return [FoundLabels(source, (Guess("labels", None, "none: INT8 is held against FP32's answers", SURE),))]
    return [_in_order(folder, data, inputs, metadata, *each) for each in found]


def _tables(folder: Path, data: Path) -> list[Path]:
    """Files that may say the labels of the images; text files have many uses, and are looked at only in the folder."""
    tables = [path for place in (folder, data) for kind in ("*.csv", "*.tsv") for path in sorted(place.glob(kind))]
    return [*tables, *sorted(folder.glob("*.txt"))][:_MOST_TABLES]


def _how_read(source: AnySource, path: Path) -> tuple[str, str]:
    """How a table was read, for people, and how sure it is that it is meant for the images."""
    start = f"labels: {path}, "
    told = [note.removeprefix(start) for note in getattr(source, "notes", ()) if note.startswith(start)]
    whole = source.labels is not None and bool(are_labelled(source.labels).all())
    return (told[0] if told else "a table of the images"), (SURE if whole else LIKELY)


def _in_order(
    folder: Path, data: Path, inputs: list[str], metadata: ModelMetadata, source: AnySource, labels: Guess
) -> FoundLabels:
    """Labels with the order of their classes, where a file or the model's metadata tells it."""
    table, classes = None if labels.value is None else folder / labels.value, None
    for name in _CLASS_FILES:
        if (folder / name).is_file():
            try:
                source = open_source(data, labels=table, classes=folder / name, inputs=inputs)
            except DatasetError:  # a list of something else
                continue
            classes = Guess("classes", name, "its names are those of the labels", LIKELY)
            break
    names, told = source.class_names, metadata.names
    if told is not None and names is not None and names != told:
        if {*names} == {*told}:
            ordered = open_source(data, labels=table, classes=told, inputs=inputs)
            written = Guess("classes", CLASSES_NAME, "the order in the model's metadata", SURE)
            return FoundLabels(ordered, (labels, written), told)
        if classes is None:
            shown = ", ".join(told[:3])
            classes = Guess("classes", None, f"the model's metadata has another order ({shown}, ...): say it", OPEN)
    return FoundLabels(source, (labels,) if classes is None else (labels, classes))


def _boxed(folder: Path, data: Path, inputs: list[str]) -> tuple[Path, BoxSource] | None:
    """Boxes of the images in files beside them: a folder of YOLO's texts, or COCO's JSON; None where there are none."""
    folders = [path for path in sorted(folder.glob("labels*")) if path.is_dir()]
    for path in (*folders, *sorted(folder.glob("*.json")), *sorted(folder.glob("annotations/*.json"))):
        try:
            found = open_source(data, labels=path, inputs=inputs)
        except DatasetError:  # a file of something else
            continue
        if isinstance(found, BoxSource):
            return path, found
    return None


def read_text(path: Path) -> str | None:
    """A small text; None where there is none."""
    try:
        return text_of_file(path, _MOST_BYTES)
    except (OSError, UnicodeDecodeError, CalibrationError):
        return None


def _is_ours(path: Path) -> bool:
    """Is this a folder that a job wrote?"""
    return any((path / name).exists() for name in (REPORT_JSON, SWEEP_JSON))


def _may_hold_images(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in SUFFIXES


def _by_name(paths: list[Path]) -> tuple[Path, Path] | None:
    """What calibrates and what is evaluated, where names say so."""
    calibrating = [p for p in paths if p.stem.lower().startswith(_TO_CALIBRATE)]
    evaluating = [p for p in paths if p.stem.lower().startswith(_TO_EVALUATE)]
    fits = len(paths) == 2 and len(calibrating) == 1 and len(evaluating) == 1
    return (calibrating[0], evaluating[0]) if fits else None


def _classes(source: AnySource) -> int:
    return 0 if source.class_names is None else len(source.class_names)


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
