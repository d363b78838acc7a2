"""How results look on a terminal: in 80 columns, sentences broken between words."""
