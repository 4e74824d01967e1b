"""A run's config: typed sections, loading from YAML, the form of the compiled pipeline."""
