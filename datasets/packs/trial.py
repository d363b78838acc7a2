"""A trial reading of an HDF5 file in a process of its own.

HDF5 follows what a file says, and damage can lead it in a circle: it then neither ends nor reacts to a signal, and
takes the whole process with it. So a child process with a limit does first what opening a pack does. What the child
has read to the end, this process can read too. It takes as long as starting Python and h5py, a fifth of a second.
"""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from pathlib import Path

from datasets.errors import DatasetError
from datasets.guards.python_child import has_python, started_python

_CPU_SECONDS = 2  # and one more for each _BYTES_A_SECOND of the file: where samples are takes space in it
_BYTES_A_SECOND = 20 * 2**20
_MOST_CPU_SECONDS = 60
_SECONDS = 180  # of a slow disk or a busy machine
_BYTES = 3 * 2**29
_MOST_OBJECTS = 10_000
_CHILD = """
path, seconds = json.loads(sys.stdin.read())
from datasets.packs.trial import read_all
try:
    read_all(path, seconds)
except MemoryError:
    sys.exit(3)
except Exception as error:  # raised again where the pack is opened, but for what HDF5 could not allocate
    sys.exit(3 if "alloc" in str(error) else 1)
"""
_NO_MEMORY = 3


def check_that_reading_ends(path: Path) -> None:
    """Let a child process read what a pack's opening reads; once for each state of the file.

    Raises:
        DatasetError: The child did not come to an end, or HDF5 ended it, or none can be started.
    """
    try:
        status = path.stat()
    except OSError:
        return  # opening it says so
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    seconds = min(_CPU_SECONDS + status.st_size // _BYTES_A_SECOND, _MOST_CPU_SECONDS)
    try:
        problem = _problem_of(str(path.resolve()), state, seconds)
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read in a process of its own first, because none can be started ({error}); end other "
            "programs, or mend the Python that runs this one, and run again"
        ) from error
    if problem:
        raise DatasetError(f"{path}: damaged HDF5 file: {problem}; write the pack again")


@lru_cache(maxsize=64)
def _problem_of(path: str, state: tuple[int, ...], seconds: int) -> str:
    if not has_python():
        return ""
    with started_python(_CHILD, flags=("-S", "-E")) as child:
        try:
            child.communicate(json.dumps([path, seconds]).encode(), timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            return f"reading it takes over {_SECONDS} s"
        finally:
            child.kill()
    if child.returncode < 0:
        return f"reading it does not end within {seconds} s, or ends the process (signal {-child.returncode})"
    if child.returncode == _NO_MEMORY:
        return f"reading it takes more than {_BYTES / 2**30:g} GiB of memory"
    return ""  # an error is raised again where the pack is opened


def read_all(path: str, seconds: int) -> None:
    """Read, in the child, everything that says where the samples of a file are, and what is read beside them.

    Args:
        path: The file.
        seconds: Of the processor; the process is ended after them.
    """
    import h5py

    from datasets.packs.structure import open_hdf5, texts_at

    _limit(seconds)
    with open_hdf5(Path(path)) as file:
        seen: set[object] = set()
        waiting: list[h5py.Group] = [file]
        while waiting and len(seen) < _MOST_OBJECTS:
            group = waiting.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    continue
                item = group[name]
                place = h5py.h5o.get_info(item.id).addr
                if place in seen:
                    continue
                seen.add(place)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset) and item.chunks is not None:
                    item.id.get_num_chunks()
        for name in ("names", "class_names"):
            texts_at(file, name, Path(path))


def _limit(seconds: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
