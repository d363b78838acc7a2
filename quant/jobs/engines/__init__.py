"""`calib build`: engines from a model and its scales, without images and without measurement."""
