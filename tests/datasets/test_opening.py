import numpy as np
import pytest

from datasets import DatasetError, ImageFolder, ImagePack, TensorPack, open_source
from datasets.source import ImageSource, TensorSource

pytestmark = pytest.mark.usefixtures("trusted_packs")

PIXELS = np.zeros((2, 3, 5, 3), np.uint8)


def test_open_source_tells_folders_and_packs_apart(numbered_folder, write_h5, tensor_pack):
    folder = open_source(numbered_folder(2), classes=["x"])
    assert isinstance(folder, ImageFolder)
    assert folder.class_names == ("x",)
    assert isinstance(folder, ImageSource)
    tensors = open_source(tensor_pack(2), inputs=["ids"])
    assert isinstance(tensors, TensorPack)
    assert isinstance(tensors, TensorSource)
    assert not isinstance(tensors, ImageSource)
    pack = open_source(write_h5("i.hdf5", images=PIXELS), inputs=["images"])
    assert isinstance(pack, ImagePack)
    assert isinstance(pack, ImageSource)


def test_open_source_takes_an_input_called_images_that_holds_no_pixels(write_h5):
    ready = write_h5(images=np.zeros((2, 3, 4, 4), np.float32))
    assert isinstance(open_source(ready, inputs=["images"]), TensorPack)
    with pytest.raises(DatasetError, match=r"'images' must be uint8 \[N, H, W, 3\]"):
        open_source(ready)


def test_open_source_refuses_the_rest(tmp_path, write_h5, tensor_pack):
    with pytest.raises(DatasetError, match="nowhere: no such file or folder; expected a folder of images or a"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(
        DatasetError, match=r"a\.zip: expected a folder of images, a data.yaml, a pack ending in \.h5 or \.hdf5, or"
    ):
        open_source(tmp_path / "a.zip")
    with pytest.raises(
        DatasetError, match=r"no dataset 'images'; the file holds 'ids' int64 \[2, 2\].*; name the model's"
    ):
        open_source(tensor_pack(2))
    with pytest.raises(DatasetError, match="a pack holds its labels itself; leave out the labels CSV"):
        open_source(write_h5(images=PIXELS), labels="x.csv")
