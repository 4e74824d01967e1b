"""Stage `notify`: tells a webhook how a run ended."""
