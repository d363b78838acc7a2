"""The parts of a report that belong to one task."""
