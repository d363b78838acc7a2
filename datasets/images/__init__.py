"""Files of images: which of a folder's they are, and their pixels."""
