"""Concurrency and rate control, learned from an endpoint's responses, within the user's limits.

    fixed         the user's requests and tokens per minute: even gaps, and never more than the limit in any minute
    estimate      the endpoint's own rate, learned from its 429s
    concurrency   how many may be in flight: more until they only queue, fewer when the endpoint slows down or breaks
    limiter       the three together

All times are seconds on one clock that the caller reads, so that a test can run an hour in an instant.
"""
