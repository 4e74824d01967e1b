"""Language models: who answers, what it costs, and the ledger that keeps every paid answer.

    with open_teacher(settings, "openai", tracker) as teacher:
        responses = teacher(requests)      # one LLMResponse for each LLMRequest, in order

`requests` defines what goes in and comes out, `ledger` stores it, `budget` bounds what it costs, `rate_limit` says when
the next request may leave. Who answers is a module of `backends`.
"""
