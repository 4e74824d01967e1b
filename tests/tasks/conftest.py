"""Property tests here are about what comes out, not about how long one example takes on a busy computer."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
