"""Stage `teacher_augment`: new examples from the seeds that the student needs help with.

    run -> teacher_augment -> requests      which seeds, how many rows from each
                           -> strategies    what is asked of a teacher; `prompts/*.md` in which words
                           -> until_usable  asks until an answer can be used; `parsing` reads it
                           -> checks        what a row is checked for without asking
                           -> verify        what it is checked for by asking

Who writes is a language model of `shared.llm`, or offline `grammar`, `pool` or the strategy `eda`.
"""
