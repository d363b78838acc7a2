"""TensorRT's own answers on tensors made to ask it, and the rules that give them."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_rule_gives_tensorrt_s_answers_and_what_the_docs_say_of_it():
    script = str(ROOT / "scripts" / "probe_entropy.py")
    without = "candidates of one non-empty bin too"
    done = subprocess.run([sys.executable, script, "--rule", without], capture_output=True, text=True, check=True)
    agreeing = {label: int(count) for label, count in re.findall(r"^\| (.+) \| (\d+) of 110 \|$", done.stdout, re.M)}
    assert agreeing == {"calib --match-tensorrt": 110, without: 61}
    words = " ".join((ROOT / "docs" / "entropy.md").read_text(encoding="utf-8").split())
    assert "The rule gives TensorRT's amax on all 110, and on 61 of them without step 5" in words
