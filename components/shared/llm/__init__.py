"""Language models that are asked: who answers, what it costs, and the ledger in which nothing is paid for twice.

    with open_teacher(settings, "openai", account) as teacher:
        answers = teacher(asks)      # one Answer for each Ask, in order

`asks` says what goes in and comes out, `ledger` keeps it, `account` bounds what it costs. Who answers is one of
`openai_endpoint`, `batch_endpoint`, `vllm_engine` and `transformers_model`.
"""
