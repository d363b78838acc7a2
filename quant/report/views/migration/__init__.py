"""What a report shows of a migration: what became of every scale."""
