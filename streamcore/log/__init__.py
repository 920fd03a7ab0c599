"""One node's disk: partitions, segments, indexes, recovery, retention. Synchronous."""
