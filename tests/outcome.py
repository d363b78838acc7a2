"""What a command line did, in the form that tests check."""

import json
from dataclasses import dataclass

from quant.progress import RecordingConsole


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def error(self):
        """The one line that says what went wrong, the last; no other does, and nothing is on standard output."""
        *notes, line = self.err.splitlines()
        assert line.startswith("calib: error: "), self.err
        assert not any(note.startswith(("calib: error: ", "Traceback")) for note in notes), self.err
        assert self.out == ""
        return line

    @property
    def warnings(self):
        """The warnings, one per line."""
        return [line.removeprefix("warning: ") for line in self.err.splitlines() if line.startswith("warning: ")]


def quick_enough(document):
    """What a CPU run that INT8 passes must choose: INT8, unless its own latencies say that FP32 is clearly quicker."""
    milliseconds = {build["precision"]: build["latency_ms"] for build in document["builds"]}
    return "fp32" if milliseconds["int8"] > 1.1 * milliseconds["fp32"] else "int8"


def calibration_images(project):
    """Names of the images that a project's calibration was made from."""
    document = json.loads((project / "calib-out" / "calibration.json").read_text())
    return [name for name, _, _ in document["source"]["images"]]


class Notes(RecordingConsole):
    """A console that keeps notes beside warnings."""

    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, line):
        self.notes.append(line)
