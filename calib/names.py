"""Names shared by the commands and the library. It imports nothing, so that `calib --help` stays quick."""

ALGORITHMS = ("entropy", "minmax", "percentile", "mse")  # `--algo`

# `--header`, by the names that TensorRT users know; trtexec and Polygraphy read entropy2 unless told otherwise.
CALIBRATORS = {
    "entropy2": "EntropyCalibration2",
    "minmax": "MinMaxCalibration",
    "entropy1": "EntropyCalibration",
    "legacy": None,  # its first line holds cutoff and quantile instead of version and name
}
