"""Answers that are pictures: super-resolution, denoising."""
