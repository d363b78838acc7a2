"""The errors of `datasets`; every message is one line and says what to do where that is known."""


class DatasetError(Exception):
    """Base of all errors of this package: data, labels or preprocessing that cannot be used as they are."""


class OutputError(DatasetError):
    """A pack that cannot be written: the disk is full, or rights are missing."""


class UnreadableImageError(DatasetError):
    """One image that cannot be read; batch streams set such images aside instead of stopping.

    Attributes:
        file: the name of the image within its source.
        reason: why it cannot be read, in plain words.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason

    def __reduce__(self) -> tuple[type["UnreadableImageError"], tuple[str, str]]:
        return type(self), (self.file, self.reason)


class TooManyUnreadableError(DatasetError):
    """More images of a stream are unreadable than `max_bad` allows."""
