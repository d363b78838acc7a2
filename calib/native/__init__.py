"""Compiled functions that are loaded without the compiler."""
