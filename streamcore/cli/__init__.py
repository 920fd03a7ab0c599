"""The streamcore command."""
