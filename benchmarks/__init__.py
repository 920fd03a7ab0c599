"""What streamcore does per second, as a ratio to what the machine can do at all."""
