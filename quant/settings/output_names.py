"""Names of the files that runs, sweeps and comparisons write into their folder `out`."""

from quant.settings.choices import CHOICES

REPORT_JSON, REPORT_MARKDOWN, REPORT_HTML = "report.json", "report.md", "report.html"
SWEEP_JSON, SWEEP_PLOT = "sweep.json", "sweep.svg"
CACHE = "calibration.cache"  # its provenance and statistics are beside it
TIMING_CACHE = "timing.cache"
RECOVERED_MODEL, RECOVERED_CACHE = "recovered.onnx", "recovered.cache"  # the latter with provenance and statistics
PRECISIONS = "precision.toml"  # the products that a search left in float
RECOVERED = (RECOVERED_MODEL, RECOVERED_CACHE, "recovered.json", "recovered.h5", PRECISIONS)
SENSITIVITY_JSON, SENSITIVITY_PLOT = "sensitivity.json", "sensitivity.svg"
MODEL_SUFFIX, ENGINE_SUFFIX = ".onnx", ".engine"
DATA_SUFFIX = ".data"  # of the file that holds a large model's weights, behind the name of the model's


def build_name(precision: str, suffix: str) -> str:
    """File name of a build, such as `model.int8.onnx`."""
    return f"model.{precision}{suffix}"


def ahead_name(precision: str, capability: str) -> str:
    """File name of an engine that was built for a GPU of another machine, such as `model.int8.sm89.engine`."""
    return build_name(precision, f".sm{capability.replace('.', '')}{ENGINE_SUFFIX}")


def onnxruntime_name(precision: str) -> str:
    """File name of a model for ONNX Runtime's own kernels, such as `model.int8.onnxruntime.onnx`."""
    return build_name(precision, f".onnxruntime{MODEL_SUFFIX}")


def description_name(engine: str) -> str:
    """File name of the description beside an engine."""
    return f"{engine}.json"


def data_name(model: str) -> str:
    """File name of the weights beside a large model."""
    return f"{model}{DATA_SUFFIX}"


def names_of_builds(precision: str) -> tuple[str, ...]:
    """All file names that runs give to builds of a precision; FP32 on ONNX Runtime is the user's own model."""
    engine = build_name(precision, ENGINE_SUFFIX)
    model = build_name(precision, MODEL_SUFFIX)
    models = () if precision == "fp32" else (model, data_name(model))
    return (*models, engine, description_name(engine))


# What a run may write beside its cache; the user's own files there may not have these names.
WRITTEN = (
    REPORT_JSON,
    REPORT_MARKDOWN,
    REPORT_HTML,
    TIMING_CACHE,
    *RECOVERED,
    *(name for precision in CHOICES["precision"] for name in names_of_builds(precision)),
)
