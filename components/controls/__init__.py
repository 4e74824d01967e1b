"""Stage `controls`: what the delivered student must be held against."""
