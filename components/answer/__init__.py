"""Stage `answer`: one pod's share of what `evaluate` asks the student."""
