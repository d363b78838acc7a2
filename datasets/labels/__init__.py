"""Class labels of images: names of classes, and labels out of folders or out of tables in many forms."""

from datasets.labels.class_labels import Labels, labels_from_folders, labels_in_order
from datasets.labels.classes import Classes, read_class_names, read_classes
from datasets.labels.label_file import labels_from_file

__all__ = [
    "Classes",
    "Labels",
    "labels_from_file",
    "labels_from_folders",
    "labels_in_order",
    "read_class_names",
    "read_classes",
]
