"""From data to scales: the images of a run, and the calibration that is made from them or was stored before."""
