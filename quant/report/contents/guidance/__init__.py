"""What a report says about what to do: the next step, and how many images are enough."""
