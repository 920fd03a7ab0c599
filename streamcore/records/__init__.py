"""Record batches v2: bytes in, bytes out, no I/O."""
