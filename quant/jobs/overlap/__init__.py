"""Parts of a run that go on at the same time: builds, calibration, evaluation."""
