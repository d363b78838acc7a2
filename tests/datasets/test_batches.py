import threading
import time

import numpy as np
import pytest

from datasets import BatchStream, DatasetError, ImageFolder, Preprocessing, Quarantined, TensorPack
from datasets.errors import TooManyUnreadableError, UnreadableImageError

PLAIN = Preprocessing("plain", scale=1.0).bound_to(["N", 3, 4, 4], "float32")


class SlowImages:
    """Images in memory whose reading takes longer the lower the index, so that threads finish out of order."""

    def __init__(self, folder, delay):
        self.path, self.names, self.labels, self.class_names = folder.path, folder.names, folder.labels, None
        self.content, self.fingerprint = folder.content, folder.fingerprint
        self._folder, self._delay = folder, delay
        self.reads = []

    def __len__(self):
        return len(self.names)

    def read(self, index):
        self.reads.append(index)
        time.sleep(self._delay * (len(self) - index) / len(self))
        return self._folder.read(index)


def reds(batches):
    return [int(value) for batch in batches for value in batch.inputs["input"][:, 0, 0, 0]]


def test_a_batch_carries_inputs_indices_names_and_labels(tmp_path, save_image):
    for i, name in enumerate(("cat/a.png", "dog/b.png", "dog/c.png")):
        save_image(tmp_path / name, (i, 0, 0), (4, 4))
    stream = BatchStream(ImageFolder(tmp_path), [2, 0], preprocessing=PLAIN, input_name="x")
    (batch,) = stream
    assert (stream.images, len(stream), batch.size) == (2, 1, 2)
    assert list(batch.inputs) == ["x"]
    assert batch.inputs["x"].shape == (2, 3, 4, 4)
    assert batch.inputs["x"].dtype == np.float32
    assert batch.inputs["x"].flags.c_contiguous
    assert batch.inputs["x"][:, 0, 0, 0].tolist() == [2.0, 0.0]
    assert batch.indices.tolist() == [2, 0]
    assert batch.indices.dtype == batch.labels.dtype == np.int64
    assert batch.names == ("dog/c.png", "cat/a.png")
    assert batch.sizes.tolist() == [[4, 4], [4, 4]]
    assert batch.labels.tolist() == [1, 0]


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (64, [10]), (1, [1] * 10)])
def test_only_the_last_batch_is_smaller(numbered_folder, batch_size, sizes):
    stream = BatchStream(ImageFolder(numbered_folder(10)), preprocessing=PLAIN, batch_size=batch_size)
    assert [batch.size for batch in stream] == sizes
    assert len(stream) == len(sizes)
    assert all(batch.labels is None for batch in stream)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("prefetch", [1, 3])
def test_order_is_that_of_the_indices_whatever_the_threads(numbered_folder, threads, prefetch):
    source = SlowImages(ImageFolder(numbered_folder(40)), 0.005)
    order = np.random.default_rng(3).permutation(40)
    stream = BatchStream(source, order, preprocessing=PLAIN, batch_size=3, threads=threads, prefetch=prefetch)
    batches = list(stream)
    assert reds(batches) == order.tolist()
    assert [index for batch in batches for index in batch.indices] == order.tolist()


def test_batches_equal_single_calls(tmp_path, save_image):
    rng = np.random.default_rng(0)
    for i in range(9):
        save_image(tmp_path / f"{i}.png", rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8))
    source = ImageFolder(tmp_path)
    preprocessing = Preprocessing.preset("imagenet").bound_to([1, 3, 16, 16], "float32")
    found = np.concatenate(
        [batch.inputs["input"] for batch in BatchStream(source, preprocessing=preprocessing, batch_size=4)]
    )
    assert np.array_equal(found, np.stack([preprocessing(source.read(i)) for i in range(9)]))


def test_batches_own_their_memory(numbered_folder):
    batches = list(BatchStream(ImageFolder(numbered_folder(6)), preprocessing=PLAIN, batch_size=2))
    batches[0].inputs["input"][:] = -1
    assert reds(batches[1:]) == [2, 3, 4, 5]


def test_every_iteration_starts_anew(numbered_folder):
    stream = BatchStream(
        ImageFolder(numbered_folder(8, bad=(2,))), preprocessing=PLAIN, batch_size=3, max_bad=0.5, threads=2
    )
    first = iter(stream)
    next(first)
    assert reds(stream) == [0, 1, 3, 4, 5, 6, 7]
    assert len(stream.quarantined) == 1
    assert reds(stream) == [0, 1, 3, 4, 5, 6, 7]
    assert len(stream.quarantined) == 1
    assert reds(first) == [4, 5, 6, 7]
    iter(stream)
    assert stream.quarantined == ()


def test_unreadable_images_are_set_aside_and_the_next_fill_the_batch(numbered_folder):
    stream = BatchStream(
        ImageFolder(numbered_folder(12, bad=(1, 2, 7))),
        range(11, -1, -1),
        preprocessing=PLAIN,
        batch_size=4,
        max_bad=0.5,
    )
    batches = list(stream)
    assert [batch.size for batch in batches] == [4, 4, 1]
    assert reds(batches) == [11, 10, 9, 8, 6, 5, 4, 3, 0]
    assert [bad.file for bad in stream.quarantined] == ["007.png", "002.png", "001.png"]
    reason = "not an image: the file begins with b'this is no image', which no PNG file does"
    assert stream.quarantined[0] == Quarantined("007.png", reason)


@pytest.mark.parametrize(("bad", "max_bad"), [((3,), 0.05), ((3, 5), 0.1), ((), 0.0)])
def test_as_many_bad_images_as_max_bad_allows(numbered_folder, bad, max_bad):
    stream = BatchStream(ImageFolder(numbered_folder(20, bad)), preprocessing=PLAIN, max_bad=max_bad)
    assert sum(batch.size for batch in stream) == 20 - len(bad)


def test_more_bad_images_than_max_bad_stop_the_stream(numbered_folder, decoding_threads):
    stream = BatchStream(ImageFolder(numbered_folder(20, bad=(4, 9))), preprocessing=PLAIN)
    with pytest.raises(TooManyUnreadableError) as caught:
        list(stream)
    assert str(caught.value) == (
        "2 of 20 images are unreadable, more than --max-bad 0.05 allows; the first is 004.png: "
        "not an image: the file begins with b'this is no image', which no PNG file does"
    )
    assert decoding_threads() == 0


def test_the_stream_stops_as_soon_as_it_is_clear(numbered_folder):
    source = SlowImages(ImageFolder(numbered_folder(100, bad=(0, 1))), 0)
    with pytest.raises(TooManyUnreadableError):
        list(BatchStream(source, preprocessing=PLAIN, batch_size=2, threads=1, prefetch=1, max_bad=0.01))
    assert len(source.reads) < 20


def test_no_readable_image_at_all_is_an_error_whatever_max_bad(numbered_folder):
    stream = BatchStream(ImageFolder(numbered_folder(3, bad=(0, 1, 2))), preprocessing=PLAIN, max_bad=1)
    with pytest.raises(
        TooManyUnreadableError, match=r"none of the 3 images is readable; the first is 000\.png: not an"
    ):
        list(stream)


def test_leaving_a_loop_early_ends_the_threads(numbered_folder, decoding_threads):
    source = SlowImages(ImageFolder(numbered_folder(60)), 0.02)
    for batch in BatchStream(source, preprocessing=PLAIN, batch_size=4, threads=3):
        assert batch.size == 4
        assert decoding_threads() > 0
        break
    assert decoding_threads() == 0
    assert len(source.reads) < 60


def test_closing_waits_for_no_more_than_the_image_in_hand(numbered_folder):
    source = SlowImages(ImageFolder(numbered_folder(160)), 0.02)
    stream = iter(BatchStream(source, preprocessing=PLAIN, batch_size=32, threads=2))  # 32 images a thread at a time
    next(stream)
    deadline = time.monotonic() + 120
    while len(source.reads) < 66 and time.monotonic() < deadline:  # until a thread has begun its next 32
        time.sleep(0.01)
    before = len(source.reads)
    stream.close()
    assert before >= 66
    assert len(source.reads) - before <= 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_in_the_loop_ends_the_threads(numbered_folder, decoding_threads, error):
    def consume():
        for _ in BatchStream(ImageFolder(numbered_folder(60)), preprocessing=PLAIN, batch_size=4):
            raise error

    with pytest.raises(error):
        consume()
    assert decoding_threads() == 0


def test_an_unexpected_error_while_reading_is_raised_not_swallowed(numbered_folder, decoding_threads):
    source = SlowImages(ImageFolder(numbered_folder(10)), 0)
    source._delay = None
    with pytest.raises(TypeError):
        list(BatchStream(source, preprocessing=PLAIN))
    assert decoding_threads() == 0


class InPairs(SlowImages):
    """Images that are only given two at a time, to two threads that ask at the same time."""

    def __init__(self, folder):
        super().__init__(folder, 0)
        self._pair = threading.Barrier(2, timeout=60)

    def read(self, index):
        self._pair.wait()
        return super().read(index)


def test_large_images_for_a_small_input_are_decoded_at_the_same_time(tmp_path, save_image):
    for i in range(8):
        save_image(tmp_path / f"{i}.png", (i, 0, 0), (80, 80))
    source = InPairs(ImageFolder(tmp_path))
    stream = BatchStream(source, preprocessing=PLAIN, batch_size=2, threads=2, prefetch=1)
    assert reds(stream) == list(range(8))


@pytest.mark.parametrize(("batch_size", "prefetch", "threads"), [(4, 2, 2), (8, 1, 1), (1, 3, 2)])
def test_decoding_ahead_is_bounded(numbered_folder, batch_size, prefetch, threads):
    source = SlowImages(ImageFolder(numbered_folder(80)), 0)
    stream = iter(BatchStream(source, preprocessing=PLAIN, batch_size=batch_size, prefetch=prefetch, threads=threads))
    next(stream)
    time.sleep(0.2)
    assert len(source.reads) <= batch_size * (prefetch + 2)
    stream.close()


def test_decoding_runs_ahead_of_use(numbered_folder):
    source = SlowImages(ImageFolder(numbered_folder(40)), 0)
    stream = iter(BatchStream(source, preprocessing=PLAIN, batch_size=4, prefetch=3, threads=2))
    next(stream)
    deadline = time.monotonic() + 120
    while len(source.reads) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(source.reads) >= 12
    stream.close()


def test_large_images_are_decoded_in_several_threads_at_once(tmp_path, save_image):
    for i in range(8):
        save_image(tmp_path / f"{i}.png", (i, 0, 0), (80, 80))
    seen = set()

    class Watched(SlowImages):
        def read(self, index):
            seen.add(threading.current_thread().name)
            return super().read(index)

    bound = Preprocessing.preset("raw").bound_to([1, 3, 80, 80], "uint8")
    list(BatchStream(Watched(ImageFolder(tmp_path), 0.02), preprocessing=bound, batch_size=2, threads=2, prefetch=1))
    assert len(seen) == 2


def test_without_preprocessing_images_stay_as_they_are(numbered_folder):
    (batch,) = BatchStream(ImageFolder(numbered_folder(3)))
    assert batch.inputs["input"].shape == (3, 4, 4, 3)
    assert batch.inputs["input"].dtype == np.uint8
    assert reds([batch]) == [0, 1, 2]


@pytest.mark.parametrize("batch_size", [2, 64])
def test_without_preprocessing_the_first_image_of_another_size_is_named(numbered_folder, save_image, batch_size):
    folder = numbered_folder(5)
    save_image(folder / "003.png", size=(4, 9))
    message = r"003\.png: 4 x 9 pixels \(height x width\), but 000\.png has 4 x 4; give one size"
    with pytest.raises(DatasetError, match=message):
        list(BatchStream(ImageFolder(folder), batch_size=batch_size))


def test_resize_none_names_the_image(numbered_folder):
    bound = Preprocessing(resize="none").bound_to([1, 3, 8, 8], "float32")
    with pytest.raises(DatasetError, match=r"000\.png: 4 x 4 pixels .* but resize 'none' takes 8 x 8 only"):
        list(BatchStream(ImageFolder(numbered_folder(2)), preprocessing=bound))


def test_tensor_packs_are_batched_by_input_name(tensor_pack):
    source = TensorPack(tensor_pack(7), ["ids", "image"])
    batches = list(BatchStream(source, [6, 1, 2, 3, 0], batch_size=3, threads=2))
    assert [batch.size for batch in batches] == [3, 2]
    assert batches[0].inputs["ids"].tolist() == [[12, 13], [2, 3], [4, 5]]
    assert batches[0].inputs["ids"].dtype == np.int64
    assert batches[1].inputs["image"].shape == (2, 1, 2, 2)
    assert batches[1].inputs["image"][:, 0, 0, 0].tolist() == [3.0, 0.0]
    assert batches[0].labels.tolist() == [0, 1, 2]


def test_tensor_packs_take_no_preprocessing(tensor_pack):
    with pytest.raises(DatasetError, match="holds ready model inputs; preprocessing is for images only"):
        BatchStream(TensorPack(tensor_pack(3), ["ids"]), preprocessing=PLAIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected 1 or more, found 0"),
        ({"threads": 0}, "threads: expected 1 or more, found 0"),
        ({"prefetch": 0}, "prefetch: expected 1 or more, found 0"),
        ({"max_bad": 1.5}, "max_bad: expected a share from 0 to 1, found 1.5"),
        ({"max_bad": float("nan")}, "max_bad: expected a share from 0 to 1, found nan"),
        ({"indices": []}, "no samples to stream; expected at least one index"),
        ({"indices": [0, 3]}, r"indices must lie in 0\.\.2"),
        ({"indices": [-1]}, r"indices must lie in 0\.\.2"),
        ({"preprocessing": Preprocessing.preset("unit")}, "preprocessing 'unit' is not bound to a model input"),
    ],
)
def test_wrong_arguments(numbered_folder, arguments, message):
    with pytest.raises(DatasetError, match=message):
        BatchStream(ImageFolder(numbered_folder(3)), **arguments)


@pytest.mark.usefixtures("one_processor")
def test_there_are_no_more_threads_than_processors_that_the_process_may_use(numbered_folder):
    assert BatchStream(ImageFolder(numbered_folder(1)), preprocessing=PLAIN).threads == 1


def test_unreadable_error_survives_pickling():
    import pickle

    found = pickle.loads(pickle.dumps(UnreadableImageError("a.png", "empty")))
    assert (found.file, found.reason, str(found)) == ("a.png", "empty", "a.png: empty")


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_batch_says_how_large_the_images_were(tmp_path, save_image, batch_size):
    sizes = [(4, 9), (30, 4), (7, 5), (64, 48), (3, 3)]  # height and width
    for i, size in enumerate(sizes):
        save_image(tmp_path / f"{i}.png", (i, 0, 0), size)
    (tmp_path / "2.png").write_bytes(b"damaged")
    stream = BatchStream(ImageFolder(tmp_path), preprocessing=PLAIN, batch_size=batch_size, max_bad=1)
    found = np.concatenate([batch.sizes for batch in stream])
    assert found.tolist() == [list(size) for i, size in enumerate(sizes) if i != 2]
