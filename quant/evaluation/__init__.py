"""How good a build is: accuracy, drop with its interval, latency, a metric of the user's own, and the verdict."""
