"""Table stores."""
