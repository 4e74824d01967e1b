"""Stage `predict`: one pod's share of the answers that `evaluate` grades."""
