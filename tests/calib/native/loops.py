"""Small functions to compile, see `calib.native.compiler`."""

from calib.native.compiler import inlined, int64s


@inlined
def _added(total, value):
    return total + value


def total(values, size, first):
    """The sum of int64 [size], begun with a float."""
    value = int64s(values)
    found = int(first)
    for i in range(size):
        found = _added(found, value[i])
    return found


def refuses(number):
    """Raises, for which numba's own code is needed at run time."""
    if number < 0:
        raise ValueError("negative")
    return number + 1
