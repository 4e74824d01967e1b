"""A language model as the grader of open answers, for tasks of form `text` with `match: judge`.

    settings = JudgeSettings(model="gpt-x", ledger="ledger")
    judge_answers(task, [(example, "In Warsaw, in 1867.")], settings)      [("In Warsaw, in 1867.", "correct")]

`settings` says who judges, `judge` asks. The calls go through `teachers`: a verdict is in the ledger and not paid for
twice, and retries, pacing and budget are those of a teacher.
"""
