"""Reading finished runs: why a row is there, what differs, what is left over."""
