"""Checks before a run spends anything: plan, preflight, the cluster's settings, a student's memory."""
