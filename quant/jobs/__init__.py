"""One file per command: run, compare, sweep, export, doctor and the cache commands; they use all other rooms."""
