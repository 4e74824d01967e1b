"""Whether two models have one vocabulary, so that their distributions over the next token can be compared."""

from typing import Any

from llm2llm.components.shared.base.errors import UserError


def refuse_other_vocabulary(student: Any, teacher: Any, sizes: tuple[int, int], named: str) -> None:
    """Compares what every token id stands for.

    Args:
        student: The student's tokenizer.
        teacher: The teacher's.
        sizes: How many tokens the student and the teacher give a probability to.
        named: The teacher's name.

    Raises:
        UserError: Some token is another, or one model has more.
    """
    key, fix = f"train.distill.model: {named}", "name a model of the student's own family, or another student"
    own, other = student.get_vocab(), teacher.get_vocab()
    if own != other:
        different = sorted(token for token in own.keys() | other.keys() if own.get(token) != other.get(token))
        raise UserError(
            f"{key} has another tokenizer than the student: {len(different):,} tokens differ, such as "
            f"{different[0]!r}, and the two distributions are compared token by token; {fix}"
        )
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{key} gives probabilities to {sizes[1]:,} tokens and the student to {sizes[0]:,}, though they have one "
            f"tokenizer, and TRL compares those of one size alone; {fix}"
        )
