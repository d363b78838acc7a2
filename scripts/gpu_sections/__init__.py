"""The comparison on a GPU, which docs/gpu-results.md shows.

Every row is kept as soon as it is measured, so that several short sessions on a machine are enough and nothing is
measured twice. The page is made from all rows measured so far.
"""
