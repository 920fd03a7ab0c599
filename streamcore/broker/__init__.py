"""The broker object: topics, partitions, waiting fetches, committed offsets."""
