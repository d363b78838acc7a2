"""The report.json of a run as `calib compare` reads it: its form is checked before anything looks into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calib.documents import DocumentError, document_from_json
from calib.regular_files import bytes_of_file
from quant.errors import QuantError


@dataclass(frozen=True)
class BuildRow:
    """A row of `builds`; reports of earlier versions have no hash."""

    precision: str
    file: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ModelRow:
    """The FP32 model."""

    path: str
    sha256: str


@dataclass(frozen=True)
class CalibrationImages:
    """The calibration images; without a hash if the cache was trusted."""

    sha256: str | None = None


@dataclass(frozen=True)
class EvaluationImages:
    """The evaluated images."""

    images: int


@dataclass(frozen=True)
class DataRow:
    """The images."""

    evaluation: EvaluationImages
    calibration: CalibrationImages | None = None


@dataclass(frozen=True)
class CalibrationRow:
    """The calibration."""

    cache: str


@dataclass(frozen=True)
class ReportDocument:
    """What is read of a report; see docs and `quant.report.contents.document` for the meanings."""

    builds: list[BuildRow]
    chosen: str
    model: ModelRow
    data: DataRow
    preprocessing: dict[str, Any]
    quarantined: list[Any] = field(default_factory=list)
    calibration: CalibrationRow | None = None
    settings: dict[str, Any] | None = None
    compared: list[Any] | None = None
    migration: dict[str, Any] | None = None
    working_folder: str | None = None

    @property
    def build(self) -> BuildRow:
        """The build that the report stands for: INT8 if there is one, else the one that was chosen, else the model."""
        rows = {row.precision: row for row in self.builds}
        for name in ("int8", self.chosen):
            if name in rows and rows[name].file is not None:
                return rows[name]
        return BuildRow("fp32", self.model.path, self.model.sha256)


def read_report(path: Path) -> ReportDocument:
    """Read a report.

    Raises:
        QuantError: It cannot be read, or is no report of a run or comparison.
    """
    try:
        document = document_from_json(ReportDocument, bytes_of_file(path))
    except OSError as error:
        raise QuantError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DocumentError as error:
        raise QuantError(f"{path}: expected the report.json of a run, found something else ({error})") from error
    texts = (document.build.file or "", document.working_folder or "", getattr(document.calibration, "cache", ""))
    if any("\0" in text for text in texts):
        raise QuantError(f"{path}: expected the report.json of a run, found a path with a zero character")
    return document
