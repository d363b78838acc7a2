"""Detection: boxes out of outputs, mean average precision, and what INT8 does to both."""
