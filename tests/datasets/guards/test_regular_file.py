"""Only files are opened, without waiting, and no more is read than their size says."""

import os
import socket
import threading

import pytest

from datasets.guards.regular_file import NotRegularError, kind_of, open_regular, pieces_of, whole_file


def test_a_file_is_read_whole_or_in_pieces(tmp_path):
    path = tmp_path / "a"
    contents = os.urandom(3 * 2**20 + 5)
    path.write_bytes(contents)
    assert whole_file(path, len(contents)) == contents
    assert whole_file(path, len(contents) - 1) is None
    with open_regular(path) as file:
        pieces = list(pieces_of(file))
    assert b"".join(pieces) == contents
    assert max(map(len, pieces)) <= 2**20
    assert kind_of(path) == "a file"


def test_a_pipe_and_a_socket_are_told_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(NotRegularError, match=f"expected a file, found a {name}"):
                open_regular(tmp_path / name)
            with pytest.raises(NotRegularError, match=f"expected a file, found a {name}"):
                whole_file(tmp_path / name, 2**20)
            assert kind_of(tmp_path / name) == f"a {name}"


def test_a_link_to_a_device_is_told_without_opening_it(tmp_path):
    (tmp_path / "endless").symlink_to("/dev/zero")
    with pytest.raises(NotRegularError, match="expected a file, found a device"):
        open_regular(tmp_path / "endless")
    with pytest.raises(NotRegularError, match="expected a file, found a device"):
        whole_file(tmp_path / "endless", 2**20)


def test_folders_and_nothing_are_told_as_python_does(tmp_path):
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    assert (kind_of(tmp_path), kind_of(tmp_path / "none"), kind_of("a\0b")) == ("a folder", "nothing", "nothing")


def test_what_a_file_gains_while_it_is_read_is_not_waited_for(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"first")
    with open_regular(path) as file:
        pieces = pieces_of(file)
        writer = threading.Thread(target=path.write_bytes, args=(b"first and more",))
        writer.start()
        writer.join()
        assert len(b"".join(pieces)) in (5, 14)  # its size when reading began
        file.seek(0)
    path.write_bytes(b"")
    with open_regular(path) as file:
        assert (whole_file(path, 0), list(pieces_of(file))) == (b"", [])
