"""What keeps a single file from hanging a run or taking all memory: opening only files, and decoding by turns."""
