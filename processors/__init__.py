"""Ready-made operators that know no domain."""
