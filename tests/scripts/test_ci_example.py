"""The example of a pipeline in docs/ci.md: its YAML is read, and its own steps run."""

import os
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import yaml

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ci.md").read_text(encoding="utf-8")


def test_the_steps_of_the_workflow_run_in_a_project_that_was_calibrated(finished, calib):
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    workflow = yaml.safe_load(text)
    (job,) = workflow["jobs"].values()
    steps = [step for step in job["steps"] if "run" in step and not step["run"].startswith("pip ")]
    summary = finished / "summary.md"
    for step in steps:
        if step["run"].startswith("calib "):
            assert calib(*shlex.split(step["run"])[1:], cwd=finished).code == 0
        else:
            assert step["if"] == "always()"  # a drop is what the summary is for
            environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(summary)}
            subprocess.run(["bash", "-ec", step["run"]], cwd=finished, env=environment, check=True)
    assert summary.read_text().startswith("# INT8 calibration: pass")
    uploaded = next(step for step in job["steps"] if step.get("uses", "").startswith("actions/upload-artifact"))
    for name in uploaded["with"]["path"].split():
        assert (finished / name).is_file()
    assert ET.parse(finished / "calib.junit.xml").getroot().tag == "testsuites"
