"""The hard case: a tenth of the inner channels is 64 times louder."""

import tarfile
from pathlib import Path

import pytest

from quant.jobs.sweep import sweep
from quant.settings.run_settings import RunSettings

EVERY = 25  # of the 10,000 test images


@pytest.mark.slow
def test_minmax_is_the_worst_on_the_outlier_net_and_the_choice_by_tensor_no_worse_than_the_best(
    shared, calibration_images, tmp_path, monkeypatch
):
    monkeypatch.setattr("quant.jobs.sweep.CHOICE_IMAGES", 64)
    with tarfile.open(shared / "data" / "cifar10-test.tar.gz") as archive:
        members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
        archive.extractall(tmp_path, sorted(members[::EVERY], key=lambda m: m.offset), filter="data")  # no way back
    (images,) = (path for path in tmp_path.iterdir() if path.is_dir())
    settings = RunSettings(
        model=shared / "models" / "resnet20-outlier.onnx",
        data=calibration_images,
        sampling="first",
        eval=images,
        out=tmp_path / "out",
    )
    document = sweep(settings, per_tensor=True)
    drops = {row["name"]: row["drop_top1"] for row in document["rows"]}
    assert document["images"] == 10_000 // EVERY
    assert document["worst"] == "minmax"
    assert drops[document["best"]] <= 15
    assert drops["minmax"] > 40
    assert drops["per-tensor"] <= min(drop for name, drop in drops.items() if name != "per-tensor")
    assert Path(settings.out / "sweep.svg").is_file()
    choice = document["per_tensor"]
    assert choice["start"] == "entropy"
    assert choice["sqnr_db"] >= choice["start_sqnr_db"]
    assert choice["confirmed_sqnr_db"] >= choice["confirmed_start_sqnr_db"]
