"""Group state: committed offsets in an internal topic."""
