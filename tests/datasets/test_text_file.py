import pytest

from datasets import DatasetError, Preprocessing
from datasets.text_file import text_from_file


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "p.toml"
    path.write_bytes(b'\xef\xbb\xbfpreset = "unit"\n')
    assert text_from_file(path, "description") == 'preset = "unit"\n'
    assert Preprocessing.from_toml(path).digest() == Preprocessing.preset("unit").digest()


def test_what_cannot_be_read_is_told_with_what_it_should_be(tmp_path):
    path = tmp_path / "names.txt"
    with pytest.raises(DatasetError, match=r"names\.txt: no such file; expected a classes file$"):
        text_from_file(path, "classes file")
    path.write_bytes("größe".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"names\.txt: classes file is not UTF-8 text \(byte 2\); save it as UTF-8$"):
        text_from_file(path, "classes file")
    with pytest.raises(DatasetError, match=r": classes file cannot be read: Is a directory$"):
        text_from_file(tmp_path, "classes file")
