"""The stage `controls`."""
