"""The detection sample: scenes of digits, and the detector that is trained on others."""
