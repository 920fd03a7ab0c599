"""Stream processing in Python over its own partitioned log."""
