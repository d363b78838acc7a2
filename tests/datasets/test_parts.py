"""Parts of a stream, here and in another process, are the stream."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from datasets import BatchStream, ImagePack, TensorPack, open_source
from datasets.arrays.memory import in_memory
from datasets.batches import Quarantined
from datasets.errors import TooManyUnreadableError

pytestmark = pytest.mark.usefixtures("trusted_packs")


@dataclass
class Input:
    """A model's input."""

    name: str
    shape: tuple
    dtype: str


def contents(stream):
    """Names and inputs, sample by sample."""
    return [
        (name, {key: array[i].tobytes() if array.ndim else array for key, array in batch.inputs.items()})
        for batch in stream
        for i, name in enumerate(batch.names)
    ]


@pytest.fixture(params=["folder", "pack", "tensors", "memory"])
def stream(request, numbered_folder, write_h5, tensor_pack):
    if request.param == "folder":
        source = open_source(numbered_folder(7))
    elif request.param == "pack":
        pixels = np.random.default_rng(0).integers(0, 255, (7, 4, 4, 3), np.uint8)
        source = ImagePack(write_h5(images=pixels, labels=np.arange(7) % 2), classes=None)
    elif request.param == "tensors":
        source = TensorPack(tensor_pack(7), ["image", "ids"])
    else:
        source = in_memory(np.arange(7 * 3, dtype=np.float32).reshape(7, 3), [Input("x", ("N", 3), "float32")], 1 << 20)
    return BatchStream(source, [5, 1, 2, 6, 0, 3, 4], batch_size=2, constants={"size": np.float32(4)})


def test_parts_put_together_are_the_whole(stream):
    assert contents(stream.part(0, 4)) + contents(stream.part(4, 7, threads=1)) == contents(stream)


def test_another_process_reads_the_same(stream):
    again = pickle.loads(pickle.dumps(stream))
    assert contents(again) == contents(stream)
    assert (again.batch_size, len(again), again.quarantined) == (2, 4, ())


def test_what_parts_set_aside_is_judged_over_all(stream):
    found = [Quarantined("a", "broken"), Quarantined("b", "empty")]
    with pytest.raises(TooManyUnreadableError, match=r"2 of 7 images are unreadable, .*; the first is a: broken"):
        stream.set_aside(found)
    stream.max_bad = 0.5
    stream.set_aside(iter(found))
    assert stream.quarantined == tuple(found)
    stream.max_bad = 1.0
    with pytest.raises(TooManyUnreadableError, match="none of the 7 images is readable"):
        stream.set_aside([Quarantined(str(i), "broken") for i in range(7)])
