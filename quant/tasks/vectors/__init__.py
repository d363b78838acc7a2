"""Answers that are a vector an image: embeddings, numbers, keypoints, several labels."""
