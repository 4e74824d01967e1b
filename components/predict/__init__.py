"""Stage `predict`: answers one shard of the questions; `evaluate` merges the shards."""
