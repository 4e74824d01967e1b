"""Where an MLflow tracking server is looked for, and what can be its address. Imports nothing heavy: compiling asks."""

from urllib.parse import urlsplit

SERVER = "MLFLOW_TRACKING_URI"


def usable(address: str) -> bool:
    """Whether this can be a tracking server's address."""
    try:
        parts = urlsplit(address.strip())
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
