"""How the framework reaches a log."""
