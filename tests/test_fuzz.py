"""The short form of `make fuzz`: hostile bytes, parts of good ones, and what it has found."""

from __future__ import annotations

import json
import os

import pytest

from extras import needs

needs("serve")

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import NAMES, fuzz_all, keeping, saved
from benchmarks.fuzz_targets import TARGETS
from hostile import TEXTS
from router_r1_graph import ChatRouterR1
from served import serving_at

DEEP = "[" * 100_000
BAD = "a\nb\x1b[31m\u202e"
ASKED = {"model": "router-r1", "messages": [{"role": "user", "content": "hi"}]}


def asking(**fields):
    return json.dumps({**ASKED, **fields}).encode()


def before(**message):
    return asking(messages=[{"role": "assistant", "content": "", **message}, *ASKED["messages"]])


def calling(arguments):
    return before(tool_calls=[{"id": "1", "function": {"name": "f", "arguments": arguments}}])


def schema(**schema):
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    return asking(response_format=form)


#: Each was a crash, or an error that said nothing.
FOUND = {
    "pool": [
        *(b"x: !!bool x", b"x: !!int ''", b"x: !!int x", b"x: !!float ''", b"x: !!timestamp x"),
        *(b"x: !!binary a", b"? !!set {a}\n: 1", b"? [a]\n: 1", b"x: 1:1" + b":59" * 300 + b".5"),
        *(b"[" * 3000, b"{a: " * 3000, b"- " * 3000, b"x: a\0b"),
        *(b"&a [*a]", b"candidates:\n- &a {name: x, options: {a: *a}}"),
        b"a0: &a0 [x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b"*a%d," % (n - 1) * 9) for n in range(1, 12)),
        *(b"candidates: [{name: A}]\n%s: %s" % (key, b"a" * 5000) for key in (b"name", b"x")),
        b"controller: {prompt_template: " + b"a" * 5000 + b"}\ncandidates: [{name: A}]",
        *(
            json.dumps({"candidates": [{"name": "A", **one}], **whole}).encode()
            for one in ({}, {BAD: 1}, *({key: BAD} for key in ("name", "provider", "model")))
            for whole in ({}, {BAD: 1}, {"name": BAD}, {"resilience": {BAD: 1}})
        ),
    ],
    "request": [
        *(calling(DEEP), before(tool_calls=5), before(tool_calls={"a": 1}), before(tool_calls=[5])),
        *(before(content=[{"type": kind, "text": "x"}]) for kind in ([], {}, 5)),
        *(schema(**{"$ref": ref}) for ref in ("#", "", "#/a", "#/$defs/a")),
        *(schema(type=kind, properties={"a": {}}) for kind in ("obje-1", 5, [], ["object", 5])),
        *(schema(type="object", properties=one) for one in ([1], {"a": 5}, {"a": True})),
        *(schema(**{key: 5}) for key in ("items", "anyOf", "allOf", "enum", "$defs", "const")),
        *(schema(anyOf=[5]), schema(enum=[]), schema(items=[{"type": "string"}])),
        *(asking(budget_usd=10**400), asking(deadline_seconds=10**400), DEEP.encode()),
    ],
    "reply": [b'{"choices": [{"message": {"content": "x"}, "finish_reason": NaN}], "model": NaN}'],
}


def broken_traces():
    """Return traces with one value of another type or one hostile key, somewhere in all of it."""
    one = json.loads(TARGETS["trace"].seeds()[0])

    def places(value, path=()):
        if isinstance(value, list):
            value = dict(enumerate(value))
        for name, inner in value.items() if isinstance(value, dict) else ():
            yield (*path, name)
            yield from places(inner, (*path, name))

    def put(path, value):
        whole = json.loads(json.dumps(one))
        part = whole
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        return json.dumps(whole).encode()

    values = (None, 5, -1.5, "x", [], [5], {}, {"a": 5}, 10**400, float("nan"))
    found = [path for path in places(one) if path[0] != "pool"]
    broken = [put(path, values[number % len(values)]) for number, path in enumerate(found)]
    near = [path[:-1] for path in places(one) if isinstance(path[-1], str)]
    return broken + [put((*path, BAD), BAD) for path in dict.fromkeys(near)]


FOUND["trace"] = [*broken_traces(), DEEP.encode()]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # openai's, of odd chunks
@pytest.mark.parametrize("name", NAMES)
def test_what_was_found_and_hostile_texts_are_read_or_refused(name):
    target = TARGETS[name]
    for data in (
        *target.seeds(),
        *FOUND.get(name, ()),
        *(text.encode(errors="replace") for text in TEXTS[::5]),
    ):
        target.check(data)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("name", NAMES)
def test_parts_of_what_can_be_read_are_read_or_refused(name):
    target = TARGETS[name]
    seeds = [seed for seed in target.seeds() if len(seed) < 10_000]
    words = st.sampled_from([word.encode() for word in target.words]) | st.binary(max_size=4)
    ends = st.floats(0, 1)

    @settings(max_examples=40)
    @given(st.sampled_from(seeds), st.sampled_from(seeds), ends, ends, words)
    def one_in_the_other(first, second, until, since, word):
        kept, rest = first[: int(until * len(first))], second[int(since * len(second)) :]
        target.check(kept + word + rest)

    one_in_the_other()


def failing_on_x(data):
    if b"x" in data:
        raise ValueError(f"no {data!r}")


def test_a_finding_is_saved_and_printed_once(tmp_path, capsys):
    tried = keeping(failing_on_x, tmp_path)
    for data in (b"a", b"x", b"xx"):
        tried(data)
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == b"x"
    assert f"FOUND {file}" in capsys.readouterr().out


def test_a_finding_counts_in_each_run_that_finds_it(tmp_path):
    (tmp_path / "another").write_bytes(b"of an earlier run, and not found again")
    for _ in range(2):
        before = saved(tmp_path)
        keeping(failing_on_x, tmp_path)(b"x")
        found = saved(tmp_path) - before
        assert len(found) == 1
        os.utime(tmp_path / found.pop()[0], (1, 1))  # the next run is later


def test_the_fuzzer_runs(tmp_path):
    pytest.importorskip("atheris", reason="the extra 'security' is missing")
    assert fuzz_all(["protocol"], 1, tmp_path) == 0
    assert len(list((tmp_path / "protocol").iterdir())) >= len(TARGETS["protocol"].seeds())


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Overriding standard format")  # of hypothesis-jsonschema
def test_the_served_api_keeps_to_its_description():
    schemathesis = pytest.importorskip("schemathesis", reason="needs the extra 'dev'")
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    with serving_at(ChatRouterR1(pool="embedded", max_rounds=1)) as url:
        described = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for found in described.get_all_operations():

            @settings(max_examples=20)
            @given(found.ok().as_strategy())
            def answered(case):
                # Not all that a request must hold can be said in its schema.
                case.call_and_validate(excluded_checks=[positive_data_acceptance])

            answered()
