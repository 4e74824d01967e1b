"""Errors, atomic files, settings, hashes, texts, statistics: what everything else stands on."""
