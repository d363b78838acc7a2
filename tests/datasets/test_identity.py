import hashlib

import pytest

from datasets import ImageFolder, identify
from datasets.errors import UnreadableImageError
from datasets.identity import ImageIdentity


def sha(data):
    return hashlib.sha256(data).hexdigest()


def test_identity_follows_contents_in_order(numbered_folder):
    folder = ImageFolder(numbered_folder(3))
    found = identify(folder, [2, 0])
    first, second = (sha((folder.path / name).read_bytes()) for name in ("002.png", "000.png"))
    assert [entry.name for entry in found.entries] == ["002.png", "000.png"]
    assert [entry.sha256 for entry in found.entries] == [first, second]
    assert found.sha256 == sha(f"{first}\n{second}\n".encode())
    assert found.hashed == 2
    assert identify(folder, [0, 2]).sha256 != found.sha256


def test_names_do_not_count(numbered_folder):
    folder = ImageFolder(numbered_folder(2))
    before = identify(folder, [0, 1]).sha256
    (folder.path / "001.png").rename(folder.path / "zzz.png")
    assert identify(ImageFolder(folder.path), [0, 1]).sha256 == before


def test_unchanged_files_are_not_read_again(numbered_folder, save_image):
    folder = ImageFolder(numbered_folder(4))
    known = identify(folder, range(3)).entries
    save_image(folder.path / "001.png", (200, 0, 0), (4, 4))
    found = identify(folder, range(4), known)
    assert found.hashed == 2  # the changed file and the new one
    assert found == identify_fresh(folder, 4)
    assert found.entries[0] == known[0]
    assert found.entries[1].sha256 == sha((folder.path / "001.png").read_bytes())


def identify_fresh(folder, count):
    fresh = identify(folder, range(count))
    return type(fresh)(fresh.entries, fresh.sha256, 2)


def test_known_digest_is_taken_on_trust_only_with_name_and_fingerprint(numbered_folder):
    folder = ImageFolder(numbered_folder(2))
    trusted = ImageIdentity("000.png", folder.fingerprint(0), "f" * 64)
    assert identify(folder, [0], [trusted]).entries == (trusted,)
    assert identify(folder, [0], [ImageIdentity("001.png", folder.fingerprint(0), "f" * 64)]).hashed == 1
    assert identify(folder, [0], [ImageIdentity("000.png", "other", "f" * 64)]).hashed == 1


def test_damaged_images_have_an_identity_and_missing_ones_do_not(numbered_folder):
    folder = ImageFolder(numbered_folder(2, bad=(1,)))
    assert identify(folder, [1]).entries[0].sha256 == sha(b"this is no image")
    (folder.path / "001.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"001\.png: cannot be read: no such file"):
        identify(folder, [0, 1])
