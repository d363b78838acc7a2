"""The errors of `datasets`. Every message is one line, and says what to do if that is known."""


class DatasetError(Exception):
    """Base of all errors of this package: the data, labels or preprocessing cannot be used as they are."""


class OutputError(DatasetError):
    """A pack cannot be written: the disk is full, or permission is denied."""


class UnreadableImageError(DatasetError):
    """An image cannot be read; batch streams set such images aside instead of stopping.

    Attributes:
        file: Name of the image in its source.
        reason: Why it cannot be read, in plain words.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason

    def __reduce__(self) -> tuple[type["UnreadableImageError"], tuple[str, str]]:
        return type(self), (self.file, self.reason)


class TooManyUnreadableError(DatasetError):
    """More images of a stream are unreadable than `max_bad` allows."""


class SourceTypeError(DatasetError, TypeError):
    """An object from Python is nothing that data can be taken from; the message says what is."""
