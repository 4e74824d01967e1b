"""Code that several stages use, in layers: see `components/README.md` for which may import which."""
