import subprocess
import sys

import pytest

import datasets


def test_every_public_name_resolves_and_is_listed():
    for name in datasets.__all__:
        assert getattr(datasets, name) is not None
        assert name in dir(datasets)


def test_distribution_mark_is_ours():
    assert datasets.DISTRIBUTION == "calib-int8"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'load_dataset'"):
        datasets.load_dataset  # noqa: B018


def test_an_image_folder_needs_no_hdf5(tmp_path, save_image):
    save_image(tmp_path / "a.png")
    program = f"import datasets, sys; datasets.ImageFolder({str(tmp_path)!r}).read(0); print('h5py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
