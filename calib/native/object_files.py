"""Object code on disk: where it lies, when it fits, and whether it is whole.

A file's name holds a key of everything that the code depends on: the source, the versions of the compilers, the
processor. Its first line holds a digest of the rest. What is damaged or was made for something else is not loaded, and
is made again. As with Python's own `__pycache__`, whoever may write to the folder decides what is run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_FORM = "calib-native-1"
_LARGEST = 16 << 20  # bytes of a file; functions take some kilobytes


@dataclass(frozen=True)
class Key:
    """What object code depends on.

    Attributes:
        digest: Of all of it, as hex digits.
        name: Begins the file's name.
        beside: Folder of the source.
    """

    digest: str
    name: str
    beside: Path


@dataclass(frozen=True)
class ObjectCode:
    """A compiled function.

    Attributes:
        data: An object file in the machine's own form.
        symbol: The function's name in it.
        needs: Names that it needs from the process, such as `log`.
    """

    data: bytes
    symbol: str
    needs: tuple[str, ...]


def key_of_functions(sources: Sequence[str], function: str) -> Key | None:
    """The key of a function on this machine; None where what it depends on cannot be read.

    Args:
        sources: Modules whose source it depends on, its own first. None of them is imported.
        function: Its name and arguments.
    """
    try:
        from llvmlite import __version__ as llvmlite_version
        from llvmlite import binding

        paths = [_source(module) for module in (*sources, "calib.native.compiler")]
        parts = [
            _FORM,
            function,
            llvmlite_version,
            _numba_version(),
            sys.platform,
            platform.machine(),
            binding.get_default_triple(),
            binding.get_host_cpu_name(),
            binding.get_host_cpu_features().flatten(),
            *(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths),
        ]
    except (ImportError, OSError, RuntimeError):
        return None
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return Key(digest, function.partition("(")[0], paths[0].parent)


def _numba_version() -> str:
    """What numba's own file says; importing numba, or looking at its metadata, takes longer than loading the code."""
    return _source("numba").with_name("_version.py").read_text(encoding="utf-8")


def _source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin:
        raise FileNotFoundError(module)
    return Path(spec.origin)


def _folders(key: Key) -> Iterator[Path]:
    """Where a function's object code may lie, the best place first: that of numba's own cache."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(given)
        return
    yield key.beside / "__pycache__"
    home = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # a user without a home
        yield (Path(home) if home else Path("~/.cache").expanduser()) / "calib-int8"


def _file_name(key: Key) -> str:
    return f"{key.name}-{key.digest[:32]}.native"


def read_kept(key: Key) -> ObjectCode | None:
    """The object code of this key; None where there is none, or what is there is damaged or something else."""
    for folder in _folders(key):
        try:
            with (folder / _file_name(key)).open("rb") as file:
                content = file.read(_LARGEST)
        except OSError:
            continue
        code = _parsed(content, key)
        if code is not None:
            return code
    return None


def _parsed(content: bytes, key: Key) -> ObjectCode | None:
    digest, _, rest = content.partition(b"\n")
    if digest != hashlib.sha256(rest).hexdigest().encode():
        return None
    head, _, data = rest.partition(b"\n")
    try:
        digest_of_key, symbol, *needs = json.loads(head)
    except ValueError:
        return None
    return ObjectCode(data, symbol, tuple(needs)) if digest_of_key == key.digest else None


def keep(key: Key, code: ObjectCode) -> Path:
    """Write object code into the first folder that takes it, whole or not at all; gives the file.

    Raises:
        OSError: No folder takes it.
    """
    head = json.dumps([key.digest, code.symbol, *code.needs]).encode()
    rest = head + b"\n" + code.data
    content = hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest
    problem = OSError("no folder for object code")
    for folder in _folders(key):
        try:
            return _written(content, folder / _file_name(key))
        except OSError as error:
            problem = error
    raise problem


def _written(content: bytes, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with scratch.open("xb") as file:
            file.write(content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path
