"""A function of the user's own goes to other processes by its file."""

import pickle

import numpy as np
import pytest

from datasets.errors import DatasetError
from quant.calibration.own_preprocessing import own_preprocessing


def test_another_process_loads_the_function_again(tmp_path):
    (tmp_path / "prepare.py").write_text(
        "def prepare(image):\n    return image[None, :, :, 0].astype('float32') / 255\n"
    )
    bound = own_preprocessing(f"{tmp_path / 'prepare.py'}:prepare").bound_to(["N", 1, 4, 4], "float32")
    again = pickle.loads(pickle.dumps(bound))
    image = np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)
    assert again == bound
    np.testing.assert_array_equal(again.fitted(image), bound.fitted(image))


def test_a_file_that_has_changed_meanwhile_is_refused(tmp_path):
    (tmp_path / "prepare.py").write_text("def prepare(image):\n    return image\n")
    sent = pickle.dumps(own_preprocessing(f"{tmp_path / 'prepare.py'}:prepare"))
    (tmp_path / "prepare.py").write_text("def prepare(image):\n    return 255 - image\n")
    with pytest.raises(DatasetError, match="has changed since the run began; run it again"):
        pickle.loads(sent)
