"""A language model as the grader of open answers, for tasks of form `text` with `match: judge`.

    settings = JudgeSettings(model="gpt-x", ledger="ledger")
    grades, told = judge_answers(task, [(example, "In Warsaw, in 1867.")], settings)
    grades               [("In Warsaw, in 1867.", "correct")]
    cost_of(told[0])     {"judge_calls": 1, "judge_input_tokens": 210, ...}

`settings` says who judges, `judge` asks, `cost` counts what that cost. The calls go through `llm`: a verdict is in the
ledger and not paid for twice, and retries, rate limits and budget are those of a teacher.
"""
