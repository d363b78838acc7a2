"""From data to scales: the images of a run, and the calibration made from them or stored earlier."""
