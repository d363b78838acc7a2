"""What the commands share: options, the terminal, error lines."""
