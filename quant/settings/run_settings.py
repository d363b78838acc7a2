"""The settings of a run, from `calib.toml` and from options; options win."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from calib.regular_files import resolved
from quant.errors import SettingsError
from quant.settings.batch_range import batch_range_from_text
from quant.settings.choices import CHOICES, RECOVERY_STEPS
from quant.settings.kinds import value_of_kind
from quant.settings.output_names import CACHE, WRITTEN

_LARGEST_DROP = 1000  # percentage points; top-1 drops by 100 at most, a metric's score by more if it may be negative


def size_from_text(text: str) -> tuple[int, int]:
    """Height and width from HEIGHTxWIDTH.

    Raises:
        SettingsError: The text has another form.
    """
    found = re.fullmatch(r"([1-9]\d{0,8})[xX]([1-9]\d{0,8})", text)
    if found is None:
        raise SettingsError(f"input_size: expected HEIGHTxWIDTH such as 224x224, found '{text:.40}'")
    return int(found[1]), int(found[2])


@dataclass(frozen=True)
class RunSettings:
    """All settings of `calib run`; field names are the keys of `calib.toml`.

    Attributes:
        model: ONNX model; None for the only one in the working folder.
        data: Calibration images: a folder, or an HDF5 pack.
        eval: Evaluation images; None for those of `data` that calibration did not use.
        labels: Labels of the evaluated images: a table in any usual form, a COCO JSON file, or a folder of YOLO's text
            files or of masks.
        classes: File with one class name per line, in the model's order.
        preprocess: Preset, path of a TOML file, or `file.py:callable`; auto takes `yolo` for detectors and `imagenet`
            for others.
        input_size: HEIGHTxWIDTH of the images for a model that leaves them open; empty for the model's or the TOML's.
        input: Inputs that are the same for every image, each as NAME=VALUE with the value as JSON.
        algo: How amax is computed: entropy, minmax, percentile, mse; auto is minmax for detectors, else entropy.
        percentile: Per cent kept by `algo = "percentile"`.
        match_tensorrt: With `algo = "entropy"`, exactly TensorRT's answers, which depend on the first batch.
        num_images: Calibration images; None for 512, or three quarters of `data` where that is less and nothing else is
            evaluated.
        sampling: random (seeded, by class if labels are known) or first (name order).
        batch_size: Images in a batch.
        seed: Seed of the sample.
        backend: auto (TensorRT if it and a GPU are found), onnxruntime, tensorrt.
        calibrator: toolkit (own statistics) or tensorrt (TensorRT's own calibration, in 8.6 and 10).
        collector: What the toolkit's statistics are made on: cpu, gpu (TensorRT), or auto: whichever is expected to
            take less time.
        workers: Workers on Ray that make the statistics; 0 for none, or as many as `ray` has machines or GPUs.
        ray: Address of a Ray cluster; empty for this machine alone.
        precision: int8 (with FP16 and FP32 as baselines and fallbacks), fp16 or fp32.
        cache: Calibration cache; None for `calibration.cache` in `out`.
        cache_only: Stop if the cache does not fit, algorithm included, instead of making a new one.
        trust_cache: Use a cache that has no provenance, after checking it against the model.
        out: Folder for everything that is written.
        max_drop: Largest accepted drop: points of top-1 or of mAP 50-95, or per cent of FP32's score of `metric`.
        max_metric_drop: Largest accepted drop of `metric`, in its own unit, in place of `max_drop`.
        max_bad: Largest accepted share of unreadable images, 0..1.
        memory_limit: MB of activations and of their counts that calibration holds at a time; and of images that an
            evaluation holds for builds that are not there yet.
        strict_int8: TensorRT: INT8 builds may not use FP16 kernels.
        explicit: TensorRT: INT8 as Q/DQ in the model, instead of a calibration cache; always on for 11.
        dynamic: TensorRT: batch sizes MIN:OPT:MAX of the engines; empty for `batch_size` only.
        workspace: TensorRT: MiB that kernels may use; 0 for all of the GPU's memory.
        builder_level: TensorRT: effort of a build, 0 to 5; None for TensorRT's default.
        tactic_sources: TensorRT: comma-separated names; empty for all that work here.
        dla: TensorRT: DLA core to build for, with the GPU for the rest; None for the GPU only.
        task: What the model is for: auto (found from labels, outputs and the model's metadata), classify, detect,
            segment, embed, or none, which ignores what folders say.
        ignore_index: Segmentation: a number in masks that stands for no class, besides 255.
        head: Detection: float (the last products before the outputs stay float) or int8.
        metric: `file.py:callable`, your own metric: scores of a batch's images from outputs and labels.
        recover: What to do where INT8 loses too much: auto (all steps as needed), off, or steps by name, separated by
            commas: equalize, ranges, bias, weights, float.
        precisions: File that says which products stay float in INT8, see `quant.settings.precision_file`.
    """

    model: Path | None = None
    data: Path | None = None
    eval: Path | None = None
    labels: Path | None = None
    classes: Path | None = None
    preprocess: str = "auto"
    input_size: str = ""
    input: tuple[str, ...] = ()
    algo: str = "auto"
    percentile: float = 99.99
    match_tensorrt: bool = False
    num_images: int | None = None
    sampling: Literal["random", "first"] = "random"
    batch_size: int = 64
    seed: int = 0
    backend: str = "auto"
    precision: str = "int8"
    cache: Path | None = None
    cache_only: bool = False
    trust_cache: bool = False
    out: Path = Path("calib-out")
    max_drop: float = 1.0
    max_metric_drop: float | None = None
    max_bad: float = 0.05
    memory_limit: int = 1024
    calibrator: str = "toolkit"
    collector: str = "auto"
    workers: int = 0
    ray: str = ""
    strict_int8: bool = False
    explicit: bool = False
    dynamic: str = ""
    workspace: int = 0
    builder_level: int | None = None
    tactic_sources: str = ""
    dla: int | None = None
    metric: str | None = None
    task: str = "auto"
    ignore_index: int | None = None
    head: str = "float"
    recover: str = "auto"
    precisions: Path | None = None

    def __post_init__(self) -> None:
        for field in fields(self):  # Python code may give a text for a path, or NumPy's numbers
            value = value_of_kind(field.name, str(field.type), getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self._check_sizes()
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingsError(f"{name}: expected one of {', '.join(choices)}, found '{getattr(self, name)}'")
        for name in ("num_images", "batch_size", "memory_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if not 0 < self.percentile <= 100:
            raise SettingsError(f"percentile: expected a number above 0 and up to 100, found {self.percentile}")
        if not 0 <= self.max_bad <= 1:
            raise SettingsError(f"max_bad: expected a share from 0 to 1, found {self.max_bad}")
        if self.match_tensorrt and self.algo not in ("auto", "entropy"):
            raise SettingsError(
                f"match_tensorrt: expected algo entropy with it, found {self.algo}; leave one of them out"
            )
        if self.max_metric_drop is not None and (self.metric is None or not math.isfinite(self.max_metric_drop)):
            raise SettingsError(
                f"max_metric_drop: expected a number in the unit of metric, which has to be given, found "
                f"{self.max_metric_drop:g} {'and no metric' if self.metric is None else ''}".rstrip()
            )
        if not abs(self.max_drop) <= _LARGEST_DROP:
            raise SettingsError(
                f"max_drop: expected percentage points from -{_LARGEST_DROP} to {_LARGEST_DROP}, found {self.max_drop}"
            )
        self._check_precision()
        unknown = [step for step in self.recovery_steps if step not in RECOVERY_STEPS]
        if unknown:
            raise SettingsError(
                f"recover: expected auto, off, or some of {', '.join(RECOVERY_STEPS)}, found '{unknown[0]}'"
            )
        if self.input_size:
            size_from_text(self.input_size)
        self._check_tensorrt()
        self._check_paths()

    def _check_sizes(self) -> None:
        """Check that numbers fit into 63 bits, and that a file can have the names."""
        if self.ignore_index is not None and self.ignore_index < 0:
            raise SettingsError(f"ignore_index: expected a number of a mask's pixels, found {self.ignore_index}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and abs(value) >= 1 << 63:
                raise SettingsError(f"{field.name}: expected a whole number of up to 63 bits, found a larger one")
            texts = value if isinstance(value, tuple) else (value,)
            if any(isinstance(text, str | Path) and "\0" in str(text) for text in texts):
                raise SettingsError(f"{field.name}: expected a name, found one with a zero character in it")

    def _check_precision(self) -> None:
        """Check the settings that only INT8 has."""
        if self.precisions is not None and self.precision != "int8":
            raise SettingsError("precisions: only INT8 leaves products in float; leave it out, or use precision int8")
        if self.cache_only and self.precision != "int8":
            raise SettingsError("cache_only: only INT8 uses a cache; leave it out, or use precision int8")

    def _check_tensorrt(self) -> None:
        """Check the settings that only TensorRT builds have."""
        if (self.workers or self.ray) and (self.match_tensorrt or self.calibrator == "tensorrt"):
            found = "match_tensorrt" if self.match_tensorrt else "calibrator tensorrt"
            raise SettingsError(f"workers: {found} takes all images in one pass; leave one of them out")
        if self.workers < 0:
            raise SettingsError(f"workers: expected a number of workers, at least 0, found {self.workers}")
        if self.collector == "gpu" and (self.match_tensorrt or self.calibrator == "tensorrt"):
            found = "match_tensorrt" if self.match_tensorrt else "calibrator tensorrt"
            raise SettingsError(f"collector: the GPU's counts do not serve {found}; leave one of them out")
        if self.calibrator == "tensorrt":
            if self.backend == "onnxruntime":
                raise SettingsError(
                    "calibrator: TensorRT's own calibration needs backend tensorrt, found onnxruntime; leave one of "
                    "them out"
                )
            if self.algo == "mse" or self.match_tensorrt:
                found = "mse" if self.algo == "mse" else "match_tensorrt"
                raise SettingsError(
                    f"calibrator: TensorRT's own calibration does not support {found}; leave one of them out"
                )
        if self.dynamic:
            self._check_dynamic()
        if self.workspace < 0:
            raise SettingsError(f"workspace: expected MiB, at least 0, found {self.workspace}")
        if self.builder_level is not None and not 0 <= self.builder_level <= 5:
            raise SettingsError(f"builder_level: expected 0 to 5, found {self.builder_level}")
        if self.dla is not None and self.dla < 0:
            raise SettingsError(f"dla: expected the number of a DLA core, found {self.dla}")

    def _check_dynamic(self) -> None:
        """Check the sizes of engines: a run executes them at the data's height and width alone."""
        if batch_range_from_text(self.dynamic).sides is not None:
            raise SettingsError(
                "dynamic: expected MIN:OPT:MAX of the batch, because a run executes engines at the size of the data; "
                "calib build makes engines for ranges of height and width"
            )

    def _check_paths(self) -> None:
        """Check that no file of a run overwrites another one, least of all the user's model."""
        written = {resolved(self.out / name) for name in WRITTEN}
        if self.model is not None and resolved(self.model) in written:
            raise SettingsError(f"{self.model}: would be overwritten by this run; rename it, or choose another --out")
        if self.precisions is not None and resolved(self.precisions) in written:
            raise SettingsError(
                f"{self.precisions}: would be replaced or removed by this run; copy it to another folder, or choose "
                "another --out"
            )
        cache = self.cache_path
        if cache.suffix in (".json", ".h5") or cache.is_dir():
            found = (
                "a folder" if cache.is_dir() else f"'{cache.suffix}', the ending of a file that is written beside it"
            )
            raise SettingsError(f"{cache}: expected the path of a cache, found {found}; name a file ending in .cache")
        if not written.isdisjoint(resolved(cache.with_suffix(suffix)) for suffix in (cache.suffix, ".json", ".h5")):
            raise SettingsError(f"{cache}: the cache would overwrite a report or model; give it another name")

    def with_algorithm(self, *, detects: bool) -> RunSettings:
        """The settings with an algorithm in place of `auto`.

        Args:
            detects: Is the model a detector? The long tails of its activations matter, and entropy cuts them off
                (docs/detection.md has figures); but entropy is TensorRT's own, and that of caches from elsewhere.
        """
        if self.algo != "auto":
            return self
        foreign = self.match_tensorrt or self.calibrator == "tensorrt" or self.trust_cache
        return replace(self, algo="minmax" if detects and not foreign else "entropy")

    @property
    def recovery_steps(self) -> tuple[str, ...]:
        """The steps of `recover`, in no order; none for `off`."""
        if self.recover in ("auto", "off"):
            return RECOVERY_STEPS if self.recover == "auto" else ()
        return tuple(step.strip() for step in self.recover.split(","))

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of `input_size`; None where it is empty."""
        return size_from_text(self.input_size) if self.input_size else None

    @property
    def cache_path(self) -> Path:
        """Where the calibration cache is or will be."""
        return self.cache if self.cache is not None else self.out / CACHE
