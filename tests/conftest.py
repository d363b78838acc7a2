import gc
import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests import colour_project
from tests.once import made_once, plain_reports
from tests.outcome import Outcome

# The first example compiles, and test machines are busy, so the time that an example takes means nothing here.
settings.register_profile("calib", deadline=None)
settings.load_profile("calib")

gc.set_threshold(20_000)  # imports and collection make hundreds of thousands of objects that stay


def pytest_collection_finish():
    """Keeps what was collected, which stays to the end, from being looked through for garbage again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def demo_master(tmp_path_factory):
    """What `calib demo` writes; tests take `demo`, a copy."""
    from calib.sample_project import write_sample_project

    return made_once(tmp_path_factory, "digits", write_sample_project)


@pytest.fixture
def linked(demo_master, tmp_path):
    """Copies the demo's folder, with links in place of copies of its 900 images, and sees to it that those stay."""

    def states():
        found = [(path, path.stat()) for path in (demo_master / "imgs").rglob("*.png")]
        return {path: (state.st_mtime_ns, state.st_size) for path, state in found}

    def copy(source, target):
        return os.link(source, target) if source.endswith(".png") else shutil.copy2(source, target)

    before = states()
    yield lambda **options: shutil.copytree(demo_master, tmp_path / "digits", copy_function=copy, **options)
    assert states() == before, "the images are other tests' too: take one away before another is written in its place"


@pytest.fixture
def demo(linked):
    """A folder as written by `calib demo`, to change at will."""
    return linked()


@pytest.fixture
def few_digits(demo_master, linked):
    """The same with every third image: 300 of them, for tests whose point is no number of images."""
    images = sorted((demo_master / "imgs").rglob("*.png"))
    left = {path for i, path in enumerate(images) if i % 3}

    def left_out(folder, names):
        return [name for name in names if Path(folder, name) in left]

    return linked(ignore=left_out)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts an empty file system with tmpfs options. Skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("mounting a file system needs root's rights")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session", autouse=True)
def short_latencies():
    """Shortens latency measurement: no test needs it, and seconds in each of hundreds of runs add up to minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quant.evaluation.latency._LATENCY_SECONDS", 0.02)
        patch.setattr("quant.evaluation.latency._LATENCY_RUNS", (2, 50))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_spinning():
    """Keeps threads from waiting in a loop: workers share the processors, and it would slow each other's work."""
    from quant.onnxruntime.session import OnnxRuntimeSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OnnxRuntimeSession.__init__.__kwdefaults__, "spin", False)
        yield


@pytest.fixture
def without_charts():
    """Leaves charts out of the reports that are made from now on."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(plain_reports())


@pytest.fixture(autouse=True)
def charts(request, without_charts):
    """Leaves charts out of reports: drawing takes over half of a short run's processor time, in hundreds of runs.

    Tests of reports and tests marked `charts` have them.
    """
    if not request.node.get_closest_marker("charts"):
        without_charts()


@pytest.fixture
def trusted_packs(monkeypatch):
    """Opens packs without the trial reading in a process of its own: test_hostile_packs.py and the commands have it."""
    monkeypatch.setattr("datasets.packs.trial._problem_of", lambda *state: "")


@pytest.fixture
def one_processor():
    """Leaves the test only one of the machine's processors, as taskset does."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("processors cannot be taken from a process here")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture
def calib(monkeypatch, capfd):
    """Runs a command line in this process, in a folder, and returns its outcome."""
    from calib.cli import main

    def call(*arguments, cwd):
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            with pytest.raises(SystemExit) as caught:
                main([str(argument) for argument in arguments])
        return Outcome(caught.value.code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def save_graph():
    """Writes a graph as a model of some opset."""
    return colour_project.save_graph


@pytest.fixture(scope="session")
def write_model():
    """Writes the colour classifier."""
    return colour_project.write_model


@pytest.fixture(scope="session")
def colours_master(tmp_path_factory):
    """The colour project; tests take `colours`, a copy."""
    return made_once(tmp_path_factory, "colours", colour_project.write_project)


@pytest.fixture
def colours(colours_master, tmp_path):
    """The colour project, nothing run in it yet, to change at will."""
    return shutil.copytree(colours_master, tmp_path / "project")


@pytest.fixture(scope="session")
def finished_master(colours_master, tmp_path_factory):
    """The colour project after a run."""

    def make(project):
        from quant import run
        from quant.settings.calib_toml import settings_from_options

        shutil.copytree(colours_master, project)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(project)
            document = run(settings_from_options({}))
        assert document["verdict"] == "pass"

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture
def finished(finished_master, tmp_path):
    """The colour project after a run, with its files in calib-out, to change at will."""
    return shutil.copytree(finished_master, tmp_path / "finished")


@pytest.fixture
def snapshot():
    """Contents and times of all files of a folder but the lock; fails when scratch lies there."""

    def take(folder):
        files = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"]
        assert not list(Path(folder).rglob(".calib-*"))
        return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    return take


@pytest.fixture
def report():
    """The report.json of a project."""
    return lambda project, out="calib-out": json.loads((project / out / "report.json").read_text())


@pytest.fixture
def scales():
    """Rewrites the scales of a cache file: `change` gets each line's hexadecimal digits."""

    def rewrite(path, change):
        header, *lines = path.read_text().splitlines()
        pairs = [line.rpartition(": ") for line in lines]
        path.write_text("\n".join([header, *(f"{name}: {change(digits)}" for name, _, digits in pairs)]) + "\n")

    return rewrite


@pytest.fixture
def opened(monkeypatch):
    """The images that were read, for their pixels or their hash, since the test began."""
    import datasets.image_folder

    names = []
    for method in ("read", "read_pixels", "content"):
        original = getattr(datasets.image_folder.ImageFolder, method)

        def counted(self, index, *wanted, original=original):
            names.append(self.names[index])
            return original(self, index, *wanted)

        monkeypatch.setattr(datasets.image_folder.ImageFolder, method, counted)
    return names


@pytest.fixture
def no_file():
    """Puts a pipe, or a link to a device, where a file is expected."""

    def make(path, kind):
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        return path

    return make
