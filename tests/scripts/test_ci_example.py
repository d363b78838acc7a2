"""The example of a pipeline in docs/ci.md: its YAML is read, and its own steps run."""

import os
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import yaml

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ci.md").read_text(encoding="utf-8")


def steps_of_the_workflow():
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    (job,) = yaml.safe_load(text)["jobs"].values()
    return job["steps"]


def carried_out(steps, folder, calib):
    """Carries steps out as GitHub does: after one that failed, only those that always run; gives the exit codes."""
    codes = []
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    for step in steps:
        if "run" not in step or step["run"].startswith("pip ") or (any(codes) and step.get("if") != "always()"):
            continue
        if step["run"].startswith("calib "):
            codes.append(calib(*shlex.split(step["run"])[1:], cwd=folder).code)
        else:
            done = subprocess.run(["bash", "-ec", step["run"]], cwd=folder, env=environment, check=False)
            codes.append(done.returncode)
    return codes


def test_the_steps_of_the_workflow_run_in_a_project_that_was_calibrated(finished, calib):
    steps = steps_of_the_workflow()
    assert carried_out(steps, finished, calib) == [0, 0, 0]
    assert (finished / "summary.md").read_text().startswith("# INT8 calibration: pass")
    uploaded = next(step for step in steps if step.get("uses", "").startswith("actions/upload-artifact"))
    for name in uploaded["with"]["path"].split():
        assert (finished / name).is_file()
    assert ET.parse(finished / "calib.junit.xml").getroot().tag == "testsuites"


def test_the_workflow_fails_where_fp16_replaces_int8(finished, calib, scales):
    """The run itself ends with 0, because what it chose keeps within the limit."""
    scales(finished / "calib-out" / "calibration.cache", lambda digits: "33000000")  # crushes every activation
    steps = steps_of_the_workflow()
    trusting = [
        step | {"run": step["run"].replace("--cache-only", "--trust-cache --recover off")} if "run" in step else step
        for step in steps
    ]
    assert carried_out(trusting, finished, calib) == [0, 1, 0]
    assert "use FP16" in (finished / "summary.md").read_text().splitlines()[0]
