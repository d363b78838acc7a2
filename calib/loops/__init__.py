"""The loops that are compiled, in numba's Python. Only `calib.native` imports them, to compile them."""
