"""How good a build is: accuracy, drop with its interval, latency, the user's own metric, and the verdict."""
