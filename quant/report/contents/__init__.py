"""What a report holds, as data."""
