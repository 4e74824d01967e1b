"""A text for each reject reason."""

from collections.abc import Mapping

from llm2llm.components.shared.data.schemas import Reason

REASONS: Mapping[Reason, str] = {
    "ambiguous": "more like the seeds of another label than like those of its own",
    "boilerplate": "holds talk around the example, such as a greeting or an offer to help",
    "call_failed": "the teacher could not be reached or answered with an error",
    "changed_numbers": "a paraphrase whose numbers are not those of the question",
    "control_tokens": "holds a control token of a chat template",
    "copy": "the same as a training row or as another generated row",
    "covered": "one of more rows than were wanted, and other rows cover it",
    "disagrees": "too few blind solutions have the answer that the teacher gave",
    "empty": "the teacher answered with nothing",
    "exhausted": "the teacher has nothing new to write from",
    "gives_answer_away": "the question or a choice tells the answer",
    "in_test": "matches a test row, which must stay unseen",
    "in_validation": "matches a validation row, which must stay unseen",
    "invalid": "no valid example of the task",
    "judged_wrong": "the judge is sure that the answer is wrong, and gave none to take its place",
    "missing": "the teacher wrote fewer rows than it was asked for",
    "near_copy": "nearly a training row or another generated row",
    "no_answer": "the student gave no answer to the question that it wrote itself",
    "no_patterns": "the grammar has no pattern for the answer",
    "noise": "the student wrote about itself, or the same words again and again",
    "not_judged": "the judge gave no verdict that can be read",
    "other_script": "holds letters of a script that the seeds do not use",
    "over_budget": "the budget was used up before the row could be asked for or verified",
    "refused": "the teacher declined",
    "same_answer": "the question was changed, and its answer was not",
    "semantic_copy": "means the same as another row, in nearly the same words",
    "template": "one too many that differs from another row in its numbers only",
    "truncated": "the teacher's answer was cut off at its longest length",
    "unparseable": "no example could be read from what the teacher wrote",
    "unusual_length": "much longer or shorter than the seeds are",
    "wrong_answer": "the rationale does not reach the right answer",
    "wrong_arithmetic": "the rationale holds a wrong calculation, or does not end at the answer",
}
