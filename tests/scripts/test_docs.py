"""Every command in the guides and the README runs as written, or is under a line that says why it is not run."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click
import onnx
import pytest

from calib.cli import command_line
from tests.outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
# The text right before a block that the tests do not run.
MARK = re.compile(r"\*\*(Needs an NVIDIA GPU|Needs the network|Not run by the tests)\*\*")
INSTALLS = ("bash scripts/", "python -m venv ", "pip install ")  # in the README, where they need no explanation
COMMANDS = ("bash", "console", "")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    heading: str
    before: str  # the paragraph above it
    language: str
    text: str

    @property
    def marked(self):
        return bool(MARK.search(self.before)) or "NVIDIA GPU" in self.heading

    @property
    def steps(self):
        """Commands, each with the output that the page shows for it."""
        lines = re.sub(r" \\\n\s*", " ", self.text).splitlines()
        if self.language != "console":
            return [(command, []) for line in lines if (command := re.sub(r"(^|\s+)#.*", "", line).strip())]
        found = []
        for line in lines:
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.strip():
                found[-1][1].append(line)
        return found


def blocks(page):
    text, found = PAGES[page], []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        above = text[: match.start()].rstrip("\n")
        headings = re.findall(r"^#+ (.*)$", above, re.MULTILINE)
        place = (page, above.count("\n") + 2, headings[-1], above.rpartition("\n\n")[2])
        found.append(Block(*place, match[1], match[2]))
    return found


ALL = [block for page in PAGES for block in blocks(page)]
COMMAND_BLOCKS = [block for block in ALL if block.language in COMMANDS]


def name_of(block):
    return f"{block.page}-{block.line}"


@pytest.fixture
def project(prepared, tmp_path):
    """A copy of the prepared project; no page writes into an image, so these are the same files."""

    def copy(source, target):
        return os.link(source, target) if source.endswith(".png") else shutil.copy2(source, target)

    return shutil.copytree(prepared, tmp_path / "digits", symlinks=True, copy_function=copy)


@pytest.fixture
def execute(calib, monkeypatch):
    """Runs one command of a page in a folder: `calib` in this process, anything else in a shell."""

    def call(command, folder):
        setting = re.match(r"(CALIB_\w+)=(\S+) (calib .*)", command)
        with monkeypatch.context() as patch:
            if setting:
                patch.setenv(setting[1], setting[2])
                command = setting[3]
            if command.startswith("calib "):
                return calib(*shlex.split(command)[1:], cwd=folder)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


def check(block, command, expected, outcome):
    """Check that the command ended as the page shows, and printed each line that the page shows."""
    where = f"{block.page}:{block.line}: {command}\n{outcome.out}{outcome.err}"
    failure = any(line.startswith("calib: error: ") for line in expected)
    too_large = any("above the allowed" in line for line in expected)
    nothing_shown = any("near chance" in line for line in expected)
    assert outcome.code == (1 if failure else 3 if too_large else 4 if nothing_shown else 0), where
    printed = [*outcome.out.splitlines(), *outcome.err.splitlines()]
    for line in expected:
        pattern = ".*".join(re.escape(part) for part in line.split("..."))
        assert any(re.fullmatch(pattern, found) for found in printed), f"not printed: {line}\n{where}"
    if command.startswith("python scripts/"):
        rows = [line for line in outcome.out.splitlines() if line.startswith("| ")]
        assert [row for row in rows if row not in PAGES[block.page]] == [], "the page shows another table"


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_one_after_the_other(page, project, execute, monkeypatch):
    import onnxruntime.transformers  # noqa: F401 - it adds to sys.path, which would be taken back at the test's end

    monkeypatch.syspath_prepend(project)
    for block in blocks(page):
        if block.marked or (page == "README.md" and block.language == "python"):  # test_readme.py runs that one
            continue
        folder = project
        if block.language == "python":
            with monkeypatch.context() as patch:
                patch.chdir(project)
                exec(compile(block.text, f"{page}:{block.line}", "exec"), {"__name__": "page"})
        for command, expected in block.steps if block.language in COMMANDS else ():
            if page == "README.md" and command.startswith(INSTALLS):
                continue
            if "--target tensorrt-rtx" in command and find_spec("tensorrt_rtx_bindings") is None:
                continue  # no package of it for this system
            if command.startswith("cd "):
                folder = folder / command[3:]
                assert folder.is_dir(), f"{page}:{block.line}: {command}"
            else:
                check(block, command, expected, execute(command, folder))
    if page == "detection.md":
        check_detection(json.loads((project / "scenes" / "calib-out" / "report.json").read_text()))


def check_detection(report):
    """Check that the sample's detector, as the page runs it, finds most of the objects, also in INT8."""
    builds = {row["precision"]: row for row in report["builds"]}
    assert report["verdict"] == "pass"
    assert builds["fp32"]["map50"] > 75
    assert builds["fp32"]["map"] > 50
    assert builds["fp16"]["drop_map"] < 0.2
    assert builds["int8"]["drop_map"] <= 1.0
    assert [row["head"] for row in report["detection"]["head_kept"]["builds"]] == ["float", "int8"]
    assert report["data"]["evaluation"]["images"] == 192


def test_nothing_is_installed_by_a_block_that_is_run():
    run = [block for block in COMMAND_BLOCKS if not block.marked and block.page != "README.md"]
    installed = [(name_of(block), command) for block in run for command, _ in block.steps if "pip install" in command]
    assert installed == []


def test_the_scripts_that_install_are_there():
    named = re.findall(r"^bash (scripts/\S+)", PAGES["README.md"], re.MULTILINE)
    assert named
    assert all((ROOT / name).is_file() for name in named)


@pytest.mark.parametrize("block", [b for b in ALL if b.marked], ids=name_of)
def test_a_block_that_is_not_run_can_at_least_be_read(block):
    if block.language == "python":
        compile(block.text, name_of(block), "exec")
    for line, _ in block.steps if block.language in COMMANDS else ():
        words = shlex.split(line)
        if words[0] != "calib":
            continue
        command, arguments = command_line, words[1:]
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), arguments.pop(0))
        assert command.make_context(command.name, arguments).command is command


def test_every_block_has_a_language_that_is_known():
    assert {block.language for block in ALL} <= {"bash", "console", "", "python", "toml", "text", "yaml"}
    assert [name_of(b) for b in ALL if not b.language and b.page != "README.md"] == []  # other tests run these too


@pytest.fixture(scope="module")
def messages():
    """Strings in the sources, in the parts between inserted values; too short ones, and docstrings, are left out."""
    found, shortest = [], min(map(needed, QUOTED))
    for path in [p for folder in ("calib", "quant", "datasets") for p in (ROOT / folder).rglob("*.py")]:
        nodes, pieces = list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))), set()
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                pieces |= set(node.values)
            elif isinstance(node, ast.Expr):
                pieces.add(node.value)
        filled = [node.values for node in nodes if isinstance(node, ast.JoinedStr)]
        plain = [[node] for node in nodes if isinstance(node, ast.Constant) and node not in pieces]
        for values in [*filled, *plain]:
            parts = [part.value for part in values if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if sum(map(len, parts)) >= shortest:
                found.append(parts)
    return found


def stand_in(parts, text):
    """Whether all parts stand in a text, one after the other."""
    end = 0
    for part in parts:
        start = text.find(part, end)
        if start < 0:
            return False
        end = start + len(part)
    return True


QUOTED = [
    *(line for block in ALL if block.language == "text" for line in block.text.splitlines()),
    *re.findall(
        r"^\| `([^`]+)` \|", PAGES["troubleshooting.md"].partition("## No GPU")[2].partition("\n## ")[0], re.MULTILINE
    ),
    *re.findall(r"`(calib: error: [^`]+)`", PAGES["troubleshooting.md"]),
]
QUOTED = [line.removeprefix("calib: error: ") for line in QUOTED if not re.match(r"TRT-|.*: [0-9a-f]+$", line)]


def needed(line):
    """How many letters of a quoted message a string of the sources must have."""
    return 0.75 * len(line.replace("...", ""))


@pytest.mark.parametrize("line", QUOTED)
def test_a_message_that_cannot_be_provoked_here_is_one_of_the_sources(line, messages):
    quoted = line.replace("...", "\0")
    assert any(sum(map(len, parts)) >= needed(line) and stand_in(parts, quoted) for parts in messages)


def anchors(text):
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (folder / path) if path else folder / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_the_readme_leads_to_every_guide():
    assert [page for page in PAGES if page != "README.md" and f"(docs/{page})" not in PAGES["README.md"]] == []


def test_onnxruntime_runs_few_of_the_demo_s_convolutions_in_int8(prepared, tmp_path):
    """docs/troubleshooting.md, INT8 is slower."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    model = str(prepared / "calib-out" / "model.int8.onnx")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    before = [node.op_type for node in onnx.load(model).graph.node]
    assert before.count("Conv") == 6
    assert kinds.count("QLinearConv") < 6
    if onnxruntime.__version__.startswith("1.32."):
        assert kinds.count("QLinearConv") == 1
