"""Records: the replies of candidates, as JSON lines.

A record is one reply with its candidate, query, tokens, cost and seconds. `Recorder` writes
records, `provider: recorded` replays them, `pool from-records` measures candidates by them.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import PoolError, did_you_mean
from ..files import append_line, read_jsonl, whole_objects
from ..outside import Amount, Count
from .store import ReplyStore
from .tool import CANDIDATE_TAG


class Record(BaseModel):
    """One reply of one candidate. None = not recorded."""

    model_config = ConfigDict(frozen=True)

    question: str
    candidate: str
    reply: str
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cost_usd: Amount | None = None
    seconds: Amount | None = None
    background: str = ""
    """The text that the candidate saw besides the query."""

    def as_line(self) -> dict[str, Any]:
        """Return the JSON object of its line; most replies have no background."""
        return self.model_dump(mode="json", exclude=None if self.background else {"background"})


def unknown_field(fields: Iterable[str]) -> str:
    """Return a message that names a field which no record has, and the known ones; "" for none."""
    for name in fields:
        if name not in Record.model_fields:
            known = Record.model_fields
            return f"a record has no {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}"
    return ""


def read_records(
    path: str | Path, fields: Mapping[str, str] | None = None
) -> Iterator[tuple[Record, Mapping[str, Any]]]:
    """Read a file line by line: each record, and the whole JSON object of its line.

    Args:
        path: a JSONL file.
        fields: field of `Record` -> its name in the file, where the two differ.

    Raises:
        PoolError: the file is missing or cannot be read, or a line is not a record; the message
            names file and line.
    """
    names = {field: (fields or {}).get(field, field) for field in Record.model_fields}
    try:
        for number, row in read_jsonl(path):
            yield _read_line(row, names, f"{path}, line {number}")
    except OSError as error:
        raise PoolError(f"{path}: the records cannot be read: {error.strerror}") from error


def _read_line(
    row: dict[str, Any] | ValueError, names: Mapping[str, str], where: str
) -> tuple[Record, Mapping[str, Any]]:
    if isinstance(row, ValueError):
        raise PoolError(f"{where}: {row}")
    try:
        return Record.model_validate({f: row[n] for f, n in names.items() if n in row}), row
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = names[str(first["loc"][0])]
        if first["type"] == "missing":
            near = did_you_mean(name, row)
            raise PoolError(f"{where}: there is no {name!r}{near}; see fields") from None
        raise PoolError(f"{where}: {name}: {first['input']!r:.80}: {first['msg']}") from None


# Marks that end or quote a sentence, but not those of arithmetic: "3-1" is not "31".
_MARKS = re.compile(r"[?!'\"`\u2018-\u201f\u2026]|[.,;:](?!\d)")


def normalize_query(query: str) -> str:
    """Return a query as the key of a lookup: without case, punctuation and extra spaces.

    Example:
        >>> normalize_query(" Who wrote 'Hamlet'?")
        'who wrote hamlet'
    """
    return " ".join(_MARKS.sub("", query.casefold()).split()) or query.strip()


class CandidateRecords:
    """The records of one candidate. Of two records of one question, the later counts.

    With another background, the same words are another question: "When was she born?"
    """

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._seen_with: dict[tuple[str, str], Record] = {}
        """The same by the background, too."""

    def add(self, record: Record) -> None:
        """Add a record."""
        query = normalize_query(record.question)
        self._records[query] = self._seen_with[query, record.background] = record

    def find(
        self, query: str, nearest: float | None = None, *, background: str = ""
    ) -> Record | None:
        """Return the record of a query, else of the nearest question that is near enough.

        Args:
            query: as the controller wrote it.
            nearest: see `RecordedOptions.nearest`.
            background: the text that the candidate sees besides; a record with another one is used
                only if none has this one.
        """
        query = normalize_query(query)
        record = self._seen_with.get((query, background)) or self._records.get(query)
        if record or nearest is None:
            return record
        words = set(query.split())
        shared = Counter(q for word in words for q in self._with_word.get(word, ()))
        share = {q: 2 * n / (len(words) + len(set(q.split()))) for q, n in shared.items()}
        best = max(share, key=lambda q: share[q], default="")
        return self._records[best] if share and share[best] >= nearest else None

    @cached_property
    def _with_word(self) -> Mapping[str, Sequence[str]]:
        questions = defaultdict(list)
        for question in self._records:
            for word in set(question.split()):
                questions[word].append(question)
        return questions


def stored_records(store: ReplyStore, *, model_names: bool = False) -> Iterator[Record]:
    """Yield the candidates' replies of a store as records, from the oldest to the newest.

    Args:
        store: the store.
        model_names: name the candidates by their models, where pools give them names of their own.
    """
    for reply in store.replies():
        if reply.candidate is not None and not reply.unread:
            yield Record(
                question=reply.question,
                candidate=reply.model if model_names else reply.candidate,
                reply=reply.text,
                input_tokens=reply.input_tokens,
                output_tokens=reply.output_tokens,
                cost_usd=reply.cost_usd,
                seconds=reply.seconds,
            )


def write_records(path: str | Path, records: Iterable[Record]) -> int:
    """Write records as JSON lines, and return how many.

    Raises:
        OSError: the file cannot be written.
    """
    count = 0
    with Path(path).open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record.as_line(), ensure_ascii=False) + "\n")
            count += 1
    return count


class Recorder(BaseCallbackHandler):
    """Appends every reply of a candidate to a file that `provider: recorded` can replay.

    Pass it to any run that calls candidates as tools, the router's or your own:
    `graph.invoke(question, {"callbacks": [Recorder("records.jsonl")]})`. Each reply is in the file
    before the run continues. It is the whole reply, even if the controller sees only a part. A
    failed call is not a reply, and is not written. A reply that comes again, out of the store of
    replies, is not written again, also where another process has written it.

    Args:
        path: the file; created with the first reply.
        gold: question -> its gold answers. A reply to one of these questions has them in its line,
            as `gold`, so that it can be scored later; one to another query has none.
    """

    run_inline = True  # in the order of the replies, in async runs too

    def __init__(
        self, path: str | Path, *, gold: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.path = Path(path)
        self._gold = {normalize_query(q): list(answers) for q, answers in (gold or {}).items()}
        self._queries: dict[UUID, str] = {}
        self._written: set[str] | None = None  # not read yet
        self._lock = threading.Lock()

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the query until its reply comes."""
        if CANDIDATE_TAG in (tags or []):
            self._queries[run_id] = str((inputs or {}).get("query", input_str))

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Write the reply to the file."""
        query = self._queries.pop(run_id, None)
        bill = getattr(output, "artifact", None)
        if query is None or not bill or not bill["ok"]:
            return
        paid = bill["cost_usd"] + bill["saved_usd"]  # whenever that was
        record = Record.model_validate(
            {**bill, "cost_usd": paid, "question": query, "reply": str(output.text)}
        )
        line = record.as_line()
        if gold := self._gold.get(normalize_query(query)):
            line["gold"] = gold
        told = _told(record.candidate, query, record.reply, record.background)
        with self._lock:
            if self._written is None:
                self._written = set(_all_told(self.path))
            if bill["stored"] and told in self._written:
                return
            self._written.add(told)
            append_line(self.path, json.dumps(line, ensure_ascii=False))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the query."""
        self._queries.pop(run_id, None)


def _all_told(file: Path) -> Iterator[str]:
    """Yield the records that are in a file already; a torn line is skipped."""
    for row in whole_objects(file):
        with suppress(KeyError, TypeError):
            background = row.get("background", "")
            yield _told(row["candidate"], str(row["question"]), row["reply"], background)


def _told(candidate: str, query: str, reply: str, background: str) -> str:
    return json.dumps([candidate, normalize_query(query), reply, background])
