"""Effects whose server asks the user something: while they wait, and with the answers."""

import time

import msgspec
from msgspec import structs

from seawall.turn import ApprovalRequest, Decision, Effect, PendingInput, Question

__all__ = ["asking", "questions_asked", "with_answer"]


def questions_asked(effect: Effect) -> int:
    """How many questions its server has asked."""
    return sum(each.question is not None for each in effect.requests)


def asking(effect: Effect, pending: PendingInput, *, seconds: float) -> Effect:
    """An effect while the first of the questions waits for its answer.

    Args:
        effect: It has run, and has done nothing.
        pending: What is asked.
        seconds: How long the user may take.
    """
    first = next(iter(pending.questions.values()))
    question = structs.replace(first, number=questions_asked(effect) + 1)
    return structs.replace(
        effect,
        status="waiting",
        began_at=0.0,  # nothing has been done
        request=ApprovalRequest(time.time() + seconds, kind="input", question=question),
        earlier=effect.requests,
        input=pending,
    )


def with_answer(
    effect: Effect, question: Question, decision: Decision, *, seconds: float
) -> Effect:
    """An effect with an answer: it runs again, or the next question waits.

    The values of a form are only with what the server gets, until the call has ended.

    Args:
        effect: It waits for the answer.
        question: What was asked.
        decision: The answer.
        seconds: How long the user may take for the next one.
    """
    pending, request = effect.input, effect.request
    assert pending is not None  # noqa: S101 - it waits for an answer
    assert request is not None  # noqa: S101 - as above
    accepted = decision.verdict == "accept"
    action = decision.verdict if decision.verdict in ("accept", "decline") else "cancel"
    response: dict[str, object] = {"action": action}
    if accepted and question.schema is not None:
        response["content"] = msgspec.json.decode(decision.arguments or "{}")
    first, *others = pending.questions
    responses = pending.responses | {first: response}
    if not accepted:  # what else was asked is not asked any more
        responses |= {each: {"action": "cancel"} for each in others}
        others = []
    pending = structs.replace(
        pending, questions={each: pending.questions[each] for each in others}, responses=responses
    )
    kept = structs.replace(request, decision=structs.replace(decision, arguments=""))
    effect = structs.replace(effect, request=kept, input=pending)
    if others:
        return asking(effect, pending, seconds=seconds)
    return structs.replace(effect, status="planned")
