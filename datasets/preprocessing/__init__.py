"""From the pixels of an image to a model's input: sizes, colours, values, layout; presets, and descriptions in TOML."""

from datasets.preprocessing.description import PRESETS, Preprocessing
from datasets.preprocessing.geometry import Frame

__all__ = ["PRESETS", "Frame", "Preprocessing"]
