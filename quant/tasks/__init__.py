"""What a model is for: how its outputs are turned into answers, and what those are worth."""
