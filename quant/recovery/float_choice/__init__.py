"""Which products stay in float: how sensitive each is, and the fewest that meet a target."""
