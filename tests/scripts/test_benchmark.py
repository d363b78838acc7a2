"""The benchmark: real rounds on the sample, and the page from invented figures whose medians can be told by hand."""

import json
import xml.etree.ElementTree as ET

import pytest
from benchmark.page import write_page
from benchmark.rounds import measure_rounds, summary, table

from calib.sample_project import write_sample_project


@pytest.fixture
def result():
    def figures(seconds, process, **more):
        return {"seconds": seconds, "peak_mb": 100.0 * seconds, "process_seconds": process, **more}

    parts = {"collect_seconds": 4.0, "search_seconds": 0.25, "cache_seconds": 0.01, "write_seconds": 0.5}
    return {
        "model": "net.onnx",
        "images": "imgs",
        "num_images": 512,
        "batch_size": 64,
        "algo": "entropy",
        "machine": {"cpu": "A <CPU>", "processors": 2, "python": "3.11", "versions": {"numpy": "2"}},
        "rounds": {
            "forward": [figures(1.0, 2.0), figures(2.0, 3.0), figures(4.0, 9.0)],
            "calib": [figures(4.0, 5.0, **parts), figures(5.0, 6.0, **parts), figures(6.0, 7.0, **parts)],
            "onnxruntime.quantization": [figures(40.0, 50.0), figures(50.0, 60.0), figures(60.0, 70.0)],
            "nvidia-modelopt": ["ImportError: no modelopt"] * 3,
        },
        "top1": {"calib": 81.25, "onnxruntime.quantization": None},
    }


def test_medians_are_of_the_rounds_and_ratios_of_figures_of_one_round(result):
    found = summary(result)
    assert found["calib"]["seconds"] == 5.0
    assert found["calib"]["ratio"] == 2.5  # of 4 / 1, 5 / 2 and 6 / 4, not 5 / 2 of the medians by chance:
    assert found["onnxruntime.quantization"]["ratio"] == 25.0  # 40 / 1, 50 / 2, 60 / 4
    assert found["calib"]["collect_ratio"] == 2.0  # 4 / 1, 4 / 2, 4 / 4
    assert found["nvidia-modelopt"] == "ImportError: no modelopt"


def test_the_table_has_a_line_for_each_tool_and_each_part(result):
    lines = table(result)[2:]
    assert lines == [
        "| forward | 2.00 | 1.0 | 3.0 | 200 |  |",
        "| calib | 5.00 | 2.5 | 6.0 | 500 | 81.25 |",
        "| - collection | 4.00 | 2.0 | | | |",
        "| - search | 0.25 | | | | |",
        "| - cache | 0.01 | | | | |",
        "| - Q/DQ model | 0.50 | | | | |",
        "| onnxruntime.quantization | 50.00 | 25.0 | 60.0 | 5000 |  |",
        "| nvidia-modelopt | ImportError: no modelopt | | | | |",
    ]


def test_the_page_and_its_plot(result, tmp_path):
    alone = {**result, "num_images": 20_000, "rounds": {k: result["rounds"][k] for k in ("forward", "calib")}}
    source = tmp_path / "figures.jsonl"
    source.write_text(json.dumps(result) + "\n" + json.dumps(alone) + "\n")
    page = write_page(source, tmp_path).read_text()
    assert "Whole process: 10.0 times as fast as onnxruntime.quantization." in page
    assert "## net.onnx: 20,000 images, entropy, this toolkit alone" in page
    assert "| net.onnx | 512 | 2.5 | 500 |" in page
    texts = {"".join(node.itertext()).strip() for node in ET.parse(tmp_path / "benchmarks.svg").iter()}
    assert {"2.5x, 500 MB", "25.0x, 5000 MB"} <= texts


def test_rounds_of_the_sample_in_processes_of_their_own(tmp_path):
    project = tmp_path / "sample"
    write_sample_project(project)
    settings = {
        "model": str(project / "model.onnx"),
        "data": str(project / "imgs"),
        "eval": str(project / "imgs"),
        "preprocess": str(project / "preprocess.toml"),
        "algo": "minmax",
        "num_images": 32,
        "batch_size": 16,
    }
    result = measure_rounds(settings, ["calib"], 1)
    own = summary(result)["calib"]
    assert own["seconds"] >= own["collect_seconds"] > 0
    assert own["process_seconds"] > own["seconds"]
    assert own["top1"] > 90
