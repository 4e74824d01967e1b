"""Stage `teacher_augment`: new examples from the seeds that the student needs help with.

`teacher_augment` is the stage; `strategies` chooses what to write from, and `grammar`, `pool`, `openai_teacher` and
`eda` write.
"""
