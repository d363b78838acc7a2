"""The report's sections and charts on detection."""
