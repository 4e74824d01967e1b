"""Stage `report`: what happened in all iterations so far, for a person."""
