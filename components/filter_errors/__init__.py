"""Stage `filter_errors`: chooses the seeds that the student needs help with, and decides whether to go on."""
