"""Images in, batches out: image folders, HDF5 packs, preprocessing and threaded batch streams, for any model."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets.batches import Batch, BatchStream, Quarantined, sample_indices
    from datasets.errors import DatasetError
    from datasets.identity import DataIdentity, identify
    from datasets.image_folder import ImageFolder
    from datasets.opening import open_source
    from datasets.packs.pack import ImagePack, TensorPack
    from datasets.packs.pack_writer import write_pack
    from datasets.preprocessing import Preprocessing
    from datasets.source import ImageSource, TensorSource

# Another distribution also installs a package called `datasets`; `calib` looks for this marker before it uses ours.
DISTRIBUTION = "calib-int8"

__all__ = [
    "DISTRIBUTION",
    "Batch",
    "BatchStream",
    "DataIdentity",
    "DatasetError",
    "ImageFolder",
    "ImagePack",
    "ImageSource",
    "Preprocessing",
    "Quarantined",
    "TensorPack",
    "TensorSource",
    "identify",
    "open_source",
    "sample_indices",
    "write_pack",
]

# Resolved on first use (PEP 562), so that `import datasets` loads neither numpy nor Pillow nor h5py.
_HOMES = {
    "Batch": "batches",
    "BatchStream": "batches",
    "DataIdentity": "identity",
    "DatasetError": "errors",
    "ImageFolder": "image_folder",
    "ImagePack": "packs.pack",
    "ImageSource": "source",
    "Preprocessing": "preprocessing",
    "Quarantined": "batches",
    "TensorPack": "packs.pack",
    "TensorSource": "source",
    "identify": "identity",
    "open_source": "opening",
    "sample_indices": "batches",
    "write_pack": "packs.pack_writer",
}


def __getattr__(name: str) -> object:
    """Import the module that holds a public name when the name is first used."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
