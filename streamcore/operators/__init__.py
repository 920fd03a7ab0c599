"""Per-key logic as plain objects: windows and joins."""
