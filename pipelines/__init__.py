"""From raw data sets to shards, and from shards to batches."""
