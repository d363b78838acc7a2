"""A pack whose images were fitted by a preprocessing gives a run what the folder would give it."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from datasets import DatasetError, ImageFolder, ImagePack, Preprocessing, write_pack
from datasets.packs.fitting import ATTRIBUTE, lost_fitting

pytestmark = pytest.mark.usefixtures("trusted_packs")

SIZE = (16, 16)


@pytest.fixture
def photos(tmp_path, save_image):
    """Six pictures of noise in four shapes, one of them that of the model."""
    rng = np.random.default_rng(0)
    for i, shape in enumerate([(40, 24), (20, 50), (16, 16), (33, 33), (20, 50), (40, 24)]):
        save_image(tmp_path / "imgs" / f"{i}.png", rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    return tmp_path / "imgs"


@pytest.mark.parametrize("preset", ["imagenet", "unit", "yolo", "cifar10"])
def test_a_pack_fitted_by_a_preprocessing_is_what_the_folder_is_after_it(tmp_path, photos, preset):
    folder, wanted = ImageFolder(photos), replace(Preprocessing.preset(preset), interpolation="bicubic")
    write_pack(folder, tmp_path / "p.h5", size=SIZE, preprocessing=wanted)
    bound = wanted.bound_to((None, 3, *SIZE), "float32")
    with ImagePack(tmp_path / "p.h5") as pack:
        for i in range(len(folder)):
            np.testing.assert_array_equal(bound(pack.read(i)), bound(folder.read(i)))
        assert lost_fitting(pack.fitted, pack.size, bound) == ""


@pytest.mark.parametrize(("preset", "lost"), [("cifar10", ""), ("unit", "'stretch'"), ("imagenet", "'crop' of 0.875")])
def test_a_pack_that_was_cropped_says_what_another_preprocessing_misses(tmp_path, photos, preset, lost):
    write_pack(ImageFolder(photos), tmp_path / "p.h5", size=SIZE)
    bound = Preprocessing.preset(preset).bound_to((None, 3, *SIZE), "float32")
    with ImagePack(tmp_path / "p.h5") as pack:
        told = lost_fitting(pack.fitted, pack.size, bound)
    assert (lost in told) and bool(told) == bool(lost)


def test_a_larger_pack_can_still_be_cropped(tmp_path, photos):
    write_pack(ImageFolder(photos), tmp_path / "p.h5", size=(20, 20))
    bound = Preprocessing.preset("imagenet").bound_to((None, 3, *SIZE), "float32")
    with ImagePack(tmp_path / "p.h5") as pack:
        assert lost_fitting(pack.fitted, pack.size, bound) == ""


def test_images_that_had_the_size_already_were_not_fitted(tmp_path, save_image):
    save_image(tmp_path / "imgs" / "0.png", (1, 2, 3), SIZE)
    write_pack(ImageFolder(tmp_path / "imgs"), tmp_path / "p.h5", size=SIZE)
    with ImagePack(tmp_path / "p.h5") as pack:
        assert pack.fitted is None


@pytest.mark.parametrize("text", ["", "[", "[1]", "7", "[" * 9999, 7])
def test_what_a_foreign_pack_says_of_its_fitting_is_read_or_left(tmp_path, photos, text):
    write_pack(ImageFolder(photos), tmp_path / "p.h5", size=SIZE)
    with h5py.File(tmp_path / "p.h5", "r+") as file:
        file["images"].attrs[ATTRIBUTE] = text
    with ImagePack(tmp_path / "p.h5") as pack:
        assert pack.fitted is None


def test_a_preprocessing_without_a_size_asks_for_one(tmp_path, photos):
    with pytest.raises(DatasetError, match=r"expected the size .* give it with --size"):
        write_pack(ImageFolder(photos), tmp_path / "p.h5", preprocessing=Preprocessing.preset("unit"))
    assert not (tmp_path / "p.h5").exists()
