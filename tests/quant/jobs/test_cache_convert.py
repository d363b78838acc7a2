"""TensorRT's own caches through every kind of file and back."""

import pytest

from quant.jobs.cache_convert import convert_cache_file


@pytest.mark.parametrize("name", ["resnet20", "resnet20-outlier", "mobilenetv2"])
def test_tensorrt_s_caches_survive_json_and_a_model_byte_by_byte(shared, tmp_path, name):
    model = shared / "models" / f"{name}.onnx"
    paths = sorted((shared / "reference" / "tensorrt-8.6.0").glob(f"{name}.*.cache"))
    assert len(paths) >= 2
    for path in paths:
        convert_cache_file(path, tmp_path / "a.json")
        convert_cache_file(tmp_path / "a.json", tmp_path / "b.onnx", model=model)
        convert_cache_file(tmp_path / "b.onnx", tmp_path / "c.cache")
        assert (tmp_path / "c.cache").read_bytes() == path.read_bytes(), path.name
