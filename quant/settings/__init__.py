"""What the user asks for: options, calib.toml, the command that repeats a run."""
