"""Making INT8 good where it loses too much: equalization, corrections, and the fewest products left in float."""
