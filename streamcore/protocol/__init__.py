"""The Kafka wire protocol: schemas, a codec compiled from them, and frames. No I/O."""
