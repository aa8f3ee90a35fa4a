"""A question about many texts, a batch a request; what an answer leaves out is asked once more."""

from __future__ import annotations

from collections.abc import Sequence

from pie_fast.errors import PieFastError
from pie_fast.llm.answers import Ratings, Verdicts
from pie_fast.llm.client import Chat
from pie_fast.llm.ledger import Failure
from pie_fast.llm.prompts import render
from pie_fast.llm.request import Request

#: at most, as FADE has it: more in a request are rated worse
BATCH = 15


def judge(
    chat: Chat,
    template: str,
    schema: type[Ratings] | type[Verdicts],
    description: str,
    items: Sequence[object],
    *,
    about: str,
    batch: int = BATCH,
) -> list[int | None]:
    """A number for each item.

    Ids are numbers within a batch, so that a request does not depend on where it stands. Ids that
    an answer has too many mean nothing; what it has too few is asked once more, the items whole.

    Args:
        chat: The language model.
        template: A prompt that takes ``description``, ``items`` by id, and ``again``.
        schema: Of its answer.
        description: What is looked for.
        items: Values that JSON can say.
        about: For people.
        batch: Items in a request, 1 to 15.

    Returns:
        The numbers in order; None where there is none, which the chat's ``failures`` tell.

    Raises:
        PieFastError: `batch` is out of range.
        UnusableError: The endpoint answers nothing.
    """
    if not 1 <= batch <= BATCH:
        raise PieFastError(f"batch is {batch}, must be in [1, {BATCH}]")
    found: dict[int, int] = {}
    missing = list(range(len(items)))
    for again in (False, True):
        batches = [missing[i : i + batch] for i in range(0, len(missing), batch)]
        requests = [
            question(template, schema, description, [items[i] for i in some], about, again=again)
            for some in batches
        ]
        missing = []
        for members, answer in zip(batches, chat.ask_all(requests), strict=True):
            if answer is None:  # it was asked often enough, and is recorded
                continue
            for n, i in enumerate(members, 1):
                if str(n) in answer.ratings:
                    found[i] = answer.ratings[str(n)]
                else:
                    missing.append(i)
    if missing:
        reason = f"{len(missing)} of {len(items)} texts were left out twice"
        chat.report(Failure(template, about, 2, reason))
    return [found.get(i) for i in range(len(items))]


def question(
    template: str,
    schema: type[Ratings] | type[Verdicts],
    description: str,
    items: Sequence[object],
    about: str,
    *,
    again: bool = False,
) -> Request[Ratings | Verdicts]:
    """The request about one batch; the arguments are those of `judge`.

    Args:
        again: These were left out of an answer.
    """
    return Request(
        template=template,
        about=about,
        messages=render(
            template,
            description=description,
            items={str(n): item for n, item in enumerate(items, 1)},
            again=again,
        ),
        schema=schema,
        answer_tokens=8 * len(items),
    )
