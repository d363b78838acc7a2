"""The comparison on a GPU that docs/gpu-results.md shows.

Every row is kept as soon as it is measured, so that a machine may be used for a short time again and again, and nothing
is measured twice; the page is made from all rows that are there.
"""
