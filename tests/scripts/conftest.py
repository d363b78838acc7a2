import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.once import made_once

ROOT = Path(__file__).resolve().parents[2]
DATA_LOADER = """\
from pathlib import Path

import numpy as np
from PIL import Image


def load_data():
    for file in sorted(Path("imgs").rglob("*.png"))[:600]:
        yield {"input": np.asarray(Image.open(file), np.float32)[np.newaxis, np.newaxis] / 255}
"""


@pytest.fixture(scope="session")
def prepared(demo_master, tmp_path_factory):
    """A calibrated demo project, with the files that the guides speak of."""
    return made_once(tmp_path_factory, "prepared", lambda project: prepare(demo_master, project))


def prepare(demo, project):
    from quant import run
    from quant.settings.calib_toml import settings_from_options

    shutil.copytree(demo, project)
    with (project / "calib.toml").open("a") as file:
        file.write('backend = "onnxruntime"\n')  # the guides show the output of a machine without a GPU
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        run(settings_from_options({}))
    for name in ("old.cache", "bare.cache"):
        shutil.copy(project / "calib-out" / "calibration.cache", project / name)
    lines = (project / "bare.cache").read_text().splitlines(keepends=True)
    (project / "partial.cache").write_text("".join(line for line in lines if not line.startswith("stem/relu: ")))
    (project / "crushed.cache").write_text("".join(re.sub(r": [0-9a-f]{8}$", ": 38000000", line) for line in lines))
    (project / "garbage.cache").write_text("hello\n")
    (project / "classes.txt").write_text("".join(f"{digit}\n" for digit in reversed(range(10))))
    shutil.copytree(project / "calib-out", project / "edited")
    with (project / "edited" / "calibration.cache").open("a") as file:
        file.write("another: 3f800000\n")
    (project / "data_loader.py").write_text(DATA_LOADER)
    (project / "docs").mkdir()
    (project / "scripts").symlink_to(ROOT / "scripts")
    write_colour_project(project, project / "my-project")


def write_colour_project(demo, folder):
    """The README's own project: colour images, preprocessed as for ImageNet, which the network undoes."""
    folder.mkdir()
    (folder / "imgs").symlink_to(demo / "imgs")
    (folder / "calib.toml").write_text('backend = "onnxruntime"\n')
    proto = onnx.load(demo / "model.onnx")
    graph = proto.graph
    weight = [[[[std / 3]] for std in (0.229, 0.224, 0.225)]]
    for name, values in (("grey.weight", weight), ("grey.bias", [(0.485 + 0.456 + 0.406) / 3])):
        graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    graph.node.insert(0, helper.make_node("Conv", ["rgb", "grey.weight", "grey.bias"], [graph.input[0].name], "grey"))
    graph.input[0].name = "rgb"
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    onnx.save(proto, folder / "model.onnx")
