"""One file a command: run, compare, sweep, export, doctor and the cache commands. They tie the other rooms together."""
