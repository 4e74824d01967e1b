"""A sweep: configs x arms x random seeds, and one table of what they come to."""
