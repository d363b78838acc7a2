"""A small share of the reliability campaign, and what the runner does with cases that go wrong."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from campaign import page
from campaign.parts import PARTS, present
from campaign.projects import FINISHED, PLAIN, write_project
from campaign.runner import PartResult, run_part, run_parts

from tests.once import made_once

ROOT = Path(__file__).resolve().parents[2]
CASES = {"images": 60, "packs": 12, "models": 8, "memory": 1, "kills": 1, "interrupts": 1, "disk": 1, "concurrency": 1}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the campaign measures memory in /proc")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The project that most parts start from."""

    def make(folder):
        folder.mkdir()
        write_project(folder)

    return made_once(tmp_path_factory, "campaign", make) / "finished"


@pytest.mark.parametrize("name", [name for name in PARTS if present(name)])
def test_a_share_of_each_part_finds_no_fault(name, finished, monkeypatch):
    monkeypatch.setenv(FINISHED, str(finished))
    monkeypatch.setenv(PLAIN, "1")
    told = []
    result = run_part(name, 20, CASES.get(name, 4), 600, told.append)
    assert told == []
    assert result.tried == CASES.get(name, 4)
    assert sum(result.words.values()) == result.tried
    if name in ("images", "packs", "models"):
        assert len(result.words) > 1  # some are refused, and some run to the end


@pytest.fixture
def part(tmp_path, monkeypatch):
    """Makes a part of the campaign out of the body of `attempt`."""

    def make(body):
        package = tmp_path / "spoiled"
        package.mkdir()
        (package / "__init__.py").touch()
        seconds = 1 if "sleep(1000)" in body else 100
        head = f"import os, time\nfrom campaign.cases import Fault\nSIZE, SECONDS, MOST_MB = 3, {seconds}, 200\n"
        head += "def prepare(folder): pass\n"
        body = textwrap.indent(body, "    ")
        (package / "made.py").write_text(f"{head}def attempt(chance, folder):\n{body}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
        monkeypatch.delitem(sys.modules, "spoiled.made", raising=False)
        monkeypatch.delitem(sys.modules, "spoiled", raising=False)
        return "spoiled.made"

    return make


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise Fault('a torn file')", "a torn file"),
        ("return {}['key']", "KeyError: 'key'"),
        ("os.kill(os.getpid(), 11)", "the process ended (-11)"),
        ("len(b'x' * (300 << 20))\nreturn 'done'", "MB of memory"),
    ],
)
def test_a_case_that_goes_wrong_is_a_fault_and_the_next_one_is_tried(part, body, fault):
    told = []
    result = run_part(part(body), 1, 2, 300, told.append)
    assert result.tried == 2
    assert len(result.faults) == 2
    assert all(fault in line for line in told)
    assert told[0].startswith("spoiled.made-1-0: ")


def test_a_case_without_end_is_ended_and_the_part_keeps_to_its_time(part):
    name = part("time.sleep(1000)")
    told = []
    result = run_part(name, 1, 2, 300, told.append)
    assert result.faults == {f"spoiled.made-1-{i}": "no end within 1 s" for i in range(2)}


def test_a_part_ends_when_its_time_is_over(part):
    name = part("time.sleep(0.5)\nreturn 'done'")
    result = run_part(name, 1, 10_000, 2, print)
    assert 0 < result.tried < 100
    assert not result.faults


def test_the_page_keeps_the_figures_of_parts_that_were_not_run(tmp_path):
    first = PartResult("images", 9, 9, slowest=1.5, peak_mb=99.6)
    first.faults["images-0-1"] = "bad"
    page.write_page([first], 0, tmp_path)
    text = page.write_page([PartResult("packs", 4, 4)], 1, tmp_path).read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith(("| images", "| packs"))]
    assert [[cell.strip() for cell in row[:1] + row[2:7]] for row in rows] == [
        ["images", "9", "8", "1", "1.5 s", "100 MB"],
        ["packs", "4", "4", "0", "0.0 s", "0 MB"],
    ]


def test_a_campaign_ends_with_code_1_if_there_was_a_fault(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "campaign.py"), "--case", "images-0-0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images: 1 of 1 tried, 0 faults; " in done.stdout


def test_parts_beside_each_other_try_every_case_once(part, tmp_path):
    """Two parts in pieces on processors of their own; one that must stay whole is tried by one process."""
    name = part(f"open('{tmp_path}/' + str(os.getpid()), 'a').write(str(chance.random()) + '\\n')\nreturn 'done'")
    (result,) = run_parts({name: 9}, 0, 60, 3, print)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    seen = [line for path in files for line in path.read_text().splitlines()]
    assert (result.tried, result.size, dict(result.words)) == (9, 9, {"done": 9})
    assert len(seen) == len(set(seen)) == 9  # the numbers of nine cases
    assert len(files) == 3
