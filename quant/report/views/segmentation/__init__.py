"""The report's sections on segmentation."""
