"""Pools as files: what is in them can be asked, and what is wrong in them is said in one line."""

from __future__ import annotations

import json
import os
import re
import signal
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from threading import Timer

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel
from pydantic import ValidationError

from extras import needs
from fakes import FakeChat, answer, make_pool, models, search
from openai_server import Reply
from router_r1_graph import (
    Candidate,
    CandidatePool,
    ConfigError,
    ControllerError,
    ControllerSettings,
    PoolError,
    ScriptedController,
    create_router_r1,
    parse_controller,
    pool_tools,
)
from router_r1_graph.candidates.pool_file import SHIPPED_POOLS
from router_r1_graph.candidates.providers import make_chat_model
from router_r1_graph.candidates.steps import Await, Wait
from router_r1_graph.candidates.steps import run as run_steps
from router_r1_graph.outside import visible
from yaml_pool import bills, both_ways, run, scripted, yaml_pool

KEY = "sk-proj-0123456789abcdef"
PAPER_PRICES = {  # PAPER.md, USD per million tokens
    "Qwen2.5-7B-Instruct": 0.30,
    "LLaMA-3.1-8B-Instruct": 0.18,
    "LLaMA-3.1-70B-Instruct": 0.88,
    "Mistral-7B-Instruct-v0.3": 0.20,
    "Mixtral-8x22B-Instruct": 1.20,
    "Gemma-2-27B-it": 0.80,
    "Palmyra-Creative-122B": 1.80,
    "LLaMA3-ChatQA-1.5-8B": 0.18,
}


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "pool.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def complaint(folder: Path, text: str | bytes) -> str:
    """Return what is said about a pool file, less the file's name, which comes first."""
    file = write(folder, text)
    with pytest.raises(PoolError) as raised:
        CandidatePool.from_yaml(file)
    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


# ------------------------------------------------------------------------------- shipped pools


def test_the_papers_pool_has_its_eight_candidates_at_the_papers_prices():
    pool = CandidatePool.from_yaml("router_r1")
    assert {c.name: c.input_usd_per_mtok for c in pool.candidates} == PAPER_PRICES
    assert {c.name: c.output_usd_per_mtok for c in pool.candidates} == PAPER_PRICES
    assert all(c.prices_checked and c.temperature == 0 for c in pool.candidates)
    assert {c.max_tokens for c in pool.candidates} == {512}


@pytest.mark.parametrize("name", sorted(p.stem for p in SHIPPED_POOLS.glob("*.yaml")))
def test_a_shipped_pool_is_complete(name):
    pool = CandidatePool.from_yaml(name)
    assert pool.name == name
    for candidate in pool.candidates:
        assert candidate.input_usd_per_mtok is not None
        assert candidate.output_usd_per_mtok is not None
        assert candidate.prices_checked is not None
        assert pool.find(candidate.slug) is candidate


def test_the_embedded_pools_need_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert len(pool_tools(CandidatePool.embedded())) == 8
    assert len(pool_tools(CandidatePool.from_yaml("embedded_unseen"))) == 4


def test_the_embedded_pools_share_no_candidate():
    unseen = CandidatePool.from_yaml("embedded_unseen")
    assert all(CandidatePool.embedded().find(c.name) is None for c in unseen.candidates)


def test_the_embedded_prices_range_from_5_cents_to_15_dollars():
    pools = [CandidatePool.embedded(), CandidatePool.from_yaml("embedded_unseen")]
    prices = [
        price
        for pool in pools
        for c in pool.candidates
        for price in (c.input_usd_per_mtok, c.output_usd_per_mtok)
    ]
    assert min(prices) >= 0.05
    assert max(prices) <= 15


def test_a_file_of_ones_own_goes_before_a_shipped_pool_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "embedded").write_text("name: mine\ncandidates: [{name: Ada}]")
    monkeypatch.chdir(tmp_path)
    assert CandidatePool.from_yaml("embedded").name == "mine"


def test_a_pool_without_a_name_is_called_as_its_file(tmp_path):
    assert CandidatePool.from_yaml(write(tmp_path, "candidates: [{name: Ada}]")).name == "pool"


# ----------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "candidates: [{name: Ada, max_token: 5}]",
            r"unknown key candidates\[0\]\.max_token \(of 'Ada'\) = 5 "
            r"\(did you mean 'max_tokens'\?\); allowed: .*, provider, .*, benchmarks, measured",
        ),
        (
            "candidates: [{name: Ada}]\ncontroller: {protocl: tags}",
            r"unknown key controller\.protocl = 'tags' \(did you mean 'protocol'\?\); allowed: .*",
        ),
        (
            "candidate: [{name: Ada}]\ncandidates: [{name: Ada}]",
            r"unknown key candidate = a list of 1 \(did you mean 'candidates'\?\); "
            r"allowed: name, candidates, controller, answer_style, resilience",
        ),
        (
            "candidates: [{name: Ada}]\ncontroller: {protocol: xml}",
            r"controller\.protocol: tags or tools is wanted, not 'xml'",
        ),
        (
            "candidates: [{name: Ada}, {name: ADA}]",
            r"pool: the name 'ada' \(name, alias or tool name of 'ADA'\) belongs to 'Ada' already",
        ),
        (
            "candidates: [{name: Ada, aliases: [x]}, {name: Bob, aliases: [X]}]",
            r"pool: the name 'x' \(name, alias .* of 'Bob'\) belongs to 'Ada' already",
        ),
        (
            "candidates: [{name: Ada, aliases: [bob]}, {name: Bob}]",
            r"pool: the name 'bob' \(.* of 'Bob'\) belongs to 'Ada' already",
        ),
        (
            "candidates: [{name: Ada 7B}, {name: Ada/7B}]",
            r"pool: the name 'ada_7b' \(.*tool name of 'Ada/7B'\) belongs to 'Ada 7B' already",
        ),
        (
            "candidates: [{name: Ada}, {name: Bob, input_usd_per_mtok: -0.5}]",
            r"candidates\[1\]\.input_usd_per_mtok \(of 'Bob'\): must be at least 0, not "
            r"-0\.5",
        ),
        (
            "candidates: [{name: Ada, output_usd_per_mtok: .nan}]",
            r"candidates\[0\]\.output_usd_per_mtok \(of 'Ada'\): a finite number .*, not nan",
        ),
        (
            "candidates: [{name: Ada, output_usd_per_mtok: .inf}]",
            r"candidates\[0\]\.output_usd_per_mtok \(of 'Ada'\): a finite number .*, not inf",
        ),
        (
            "candidates: [{name: Ada, max_tokens: lots}]",
            r"candidates\[0\]\.max_tokens \(of 'Ada'\): a whole number is wanted, not 'lots'",
        ),
        (
            "candidates: [{name: Ada, prices_checked: soon}]",
            r"candidates\[0\]\.prices_checked \(of 'Ada'\): a date such as .*, not 'soon'",
        ),
        (
            "candidates: [{name: Ada, prices_checked: 2026-13-01}]",
            r"not a YAML file: line 1, column 42: this is no timestamp: month .*",
        ),
        (
            "candidates: [{name: Ada, provider: opnai}]",
            r"candidates\[0\]\.provider \(of 'Ada'\): unknown provider 'opnai' "
            r"\(did you mean 'openai'\?\); allowed: openai, langchain, recorded, simulated, "
            r"tool, retriever, graph, mcp, or module:factory",
        ),
        (
            "candidates: [{name: Ada, provider: anthropic}]",
            r".*unknown provider 'anthropic'; .*; others by provider: langchain, "
            r"model: 'anthropic:NAME'",
        ),
        (
            "candidates: [{name: 'Ada: the first'}]",
            r"candidates\[0\]\.name \(.*\): 'Ada: the first': a name has no ':', .*",
        ),
        ("candidates: [{name: '<Ada>'}]", r"candidates\[0\]\.name .* a name has no ':', '<', .*"),
        (
            "candidates: [{name: Ada, aliases: ['a:b']}]",
            r"candidates\[0\]\.aliases \(of 'Ada'\): 'a:b': a name has no ':'.*",
        ),
        ("candidates: [{name: ''}]", r"candidates\[0\]\.name .*: must not be empty"),
        ("candidates: [{model: ada-1}]", r"candidates\[0\]\.name: is missing"),
        ("candidates: [Ada]", r"candidates\[0\]: a mapping is wanted, not 'Ada'"),
        ("candidates: []", r"candidates: at least 1 entry is wanted, not an empty list"),
        ("name: empty", r"candidates: is missing"),
        ("candidates: [{name: Ada, 7: x}]", r"candidates\[0\]\[7\].*: a key is a text, .*"),
        ("[{name: Ada}]", r"a pool is a mapping with the key 'candidates', not a list of 1"),
        ("Ada", r"a pool is a mapping with the key 'candidates', not 'Ada'"),
        ("", r"empty; a pool is a mapping with the key 'candidates'"),
        ("candidates: [", r"not a YAML file: line 1, column 14: .*"),
        ("candidates:\n\t- name: Ada", r"not a YAML file: line 2, column 1: .*"),
        ("candidates: !!python/object:os.system []", r"not a YAML file: line 1, column 13: .*"),
        (b"candidates: [{name: \xff}]", r"not a YAML file: 'utf-8' codec can't decode .*"),
        (
            "candidates: [{name: Ada}]\ncontroller: {prompt_template: nowhere.txt}",
            r"controller\.prompt_template: no such file '.*nowhere\.txt'",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line(tmp_path, text, says):
    message = complaint(tmp_path, text)
    assert re.fullmatch(says, message), message


@pytest.mark.parametrize(
    ("field", "low", "high", "beyond"),
    [
        ("timeout_seconds", "0.000001", "2147483647", (1e-300, 1e18, 1e300)),
        ("breaker_seconds", "0.000001", "2147483647", (0, 1e300)),
        ("hedge_after_seconds", "0.000001", "2147483647", (-1, 1e300)),
        ("cache_ttl_seconds", "0.000001", "2147483647", (0, 1e300)),
        ("latency_seconds", "0", "1000000", (-1, 1e300)),
        ("requests_per_minute", "0.000001", "1000000000000", (1e-300, 1e300)),
        ("tokens_per_minute", "0.000001", "1000000000000", (1e-300, 1e300)),
        ("max_tokens", "1", "2147483647", (0, 10**30)),
        ("max_retries", "0", "10", (-1, 10**30)),
        ("max_concurrency", "1", "2147483647", (0, 10**30)),
        ("breaker_failures", "1", "2147483647", (0, 10**30)),
        ("breaker_probes", "1", "2147483647", (0, 10**30)),
        ("usd_per_call", "0", "1000", (-1, 1001)),
        ("output_usd_per_mtok", "0", "1000000", (-1, 1e300)),
        ("temperature", "0", "2", (-1, 1e300)),
    ],
)
def test_every_number_of_a_candidate_has_a_range(tmp_path, field, low, high, beyond):
    for value in beyond:
        said = complaint(tmp_path, json.dumps({"candidates": [{"name": "Ada", field: value}]}))
        limit = f"at most {high}" if value > float(high) else f"at least {low}"
        assert said.startswith(f"candidates[0].{field} (of 'Ada'): must be {limit}, not ")
    others = {"timeout_seconds": float(high)} if field == "hedge_after_seconds" else {}
    for value in (low, high if not others else "60"):
        assert Candidate(name="Ada", **others, **{field: float(value)})


def test_no_number_of_a_candidate_is_without_a_limit():
    for kind in (Candidate, ControllerSettings):
        for name, schema in kind.model_json_schema()["properties"].items():
            for one in schema.get("anyOf", [schema]):
                if one.get("type") in ("integer", "number"):
                    assert {"minimum", "maximum"} <= one.keys(), name


NO_LIMIT = 2**31 - 1


@both_ways
@pytest.mark.parametrize("times", [{}, {"hedge_after_seconds": NO_LIMIT - 1}])
def test_settings_that_mean_no_limit_are_waited_for(serve, tmp_path, how, times):
    most = dict.fromkeys(("timeout_seconds", "max_tokens", "breaker_seconds"), NO_LIMIT)
    most |= dict.fromkeys(("max_concurrency", "breaker_failures", "breaker_probes"), NO_LIMIT)
    most |= {"requests_per_minute": 1e12, "tokens_per_minute": 1e12}
    server = serve(Reply("Paris"))
    pool = yaml_pool(tmp_path, server, **most | times)
    limits = {"deadline_seconds": NO_LIMIT, "budget_usd": 10**12}
    state = run(scripted(pool, search("Ada: Capital?"), answer()), how, **limits)
    assert [bill["error"] for bill in bills(state)] == [None]
    assert server.requests[0].body["max_tokens"] == NO_LIMIT


def test_a_wait_may_be_longer_than_any_lock_or_sleep():
    class SleptError(Exception):
        pass

    def steps():
        done = Future()
        done.set_result("here")
        assert (yield Await(done, 1e18)) == "here"
        yield Wait(1e18)

    def stop(*_):
        raise SleptError

    before = signal.signal(signal.SIGUSR1, stop)
    Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    with pytest.raises(SleptError):
        run_steps(steps(), lambda: None)
    signal.signal(signal.SIGUSR1, before)


def test_several_mistakes_are_all_said(tmp_path):
    message = complaint(tmp_path, "candidates: [{name: A, max_tokens: 0, temperature: 9}, {x: 1}]")
    temperature, tokens, name, x = message.split("; ", 3)
    assert temperature == "candidates[0].temperature (of 'A'): must be at most 2, not 9"
    assert tokens == "candidates[0].max_tokens (of 'A'): must be at least 1, not 0"
    assert name == "candidates[1].name: is missing"
    assert x.startswith("unknown key candidates[1].x = 1")


@pytest.mark.parametrize(
    ("given", "near"), [("embeded", "embedded"), ("mine.yml", "mine.yaml"), ("x/y.yaml", "")]
)
def test_a_missing_file_suggests_the_nearest_pool(given, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(PoolError) as raised:
        CandidatePool.from_yaml(given)
    suggested = f" (did you mean '{near}'?)" if near else ""
    assert str(raised.value).startswith(
        f"{given}: no such pool file{suggested}; shipped pools: embedded, "
    )


def test_a_folder_is_no_pool_file(tmp_path):
    with pytest.raises(PoolError, match="no such pool file"):
        CandidatePool.from_yaml(tmp_path)


def test_a_prompt_template_is_found_beside_its_pool_file(tmp_path):
    (tmp_path / "mine.txt").write_text("$question")
    file = write(
        tmp_path, "candidates: [{name: Ada}]\ncontroller: {prompt_template: mine.txt, model: m}"
    )
    assert CandidatePool.from_yaml(file).controller == ControllerSettings(
        model="m", prompt_template=tmp_path / "mine.txt"
    )


# ---------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "text",
    [
        f"candidates: [{{name: Ada, api_key: {KEY}}}]",
        f"candidates: [{{name: Ada, api_key_env: {KEY}}}]",
        f"candidates: [{{name: Ada, auth: {{header: {KEY}}}}}]",
        f"candidates: [{{name: Ada, auth: [{KEY}]}}]",
        f"candidates: [{{name: Ada, authorization: Bearer {KEY}}}]",
        f"candidates: {{name: Ada, api_key: {KEY}}}",
        f"candidates: [{KEY}]",
        f"candidates: [{{name: {{api_key: {KEY}}}}}]",
        f"candidates: [{{name: Ada, options: [{KEY}]}}]",
        f"candidates: [{{name: Ada, options: {{api_key: {KEY}}}}}]",
        f"candidates: [{{name: Ada, options: {{x: {KEY}}}}}, {{name: Ada}}]",
        f"candidates: [{{name: Ada}}]\ncontroller: {{api_key: {KEY}}}",
        f"candidates: [{{name: Ada}}]\ncontroller: {KEY}",
        f"candidates: [{{name: Ada}}]\napi_key: {KEY}",
        f"- api_key: {KEY}",
        KEY,
        f"api_key: {KEY}: x",
        f"api_key: {KEY}\n\tx",
        f"api_key: '{KEY}",
        f"api_key: !<{KEY}> x",
    ],
)
def test_a_key_in_a_file_is_refused_without_being_shown(tmp_path, text):
    message = complaint(tmp_path, text)
    assert KEY not in message
    assert KEY[8:] not in message


def test_what_led_to_the_refusal_of_a_key_is_not_shown_in_a_traceback(tmp_path):
    for text in (f"candidates: [{{name: Ada, api_key: {KEY}}}]", f"api_key: {KEY}: x"):
        with pytest.raises(PoolError) as raised:
            CandidatePool.from_yaml(write(tmp_path, text))
        assert raised.value.__suppress_context__
        assert raised.value.__cause__ is None


def test_a_key_that_is_not_set_is_named_with_its_candidate(monkeypatch):
    monkeypatch.delenv("ADA_KEY", raising=False)
    pool = make_pool(
        {"name": "Ada", "api_key_env": "ADA_KEY"}, {"name": "Bob", "base_url": "http://x"}
    )
    with pytest.raises(PoolError) as raised:
        pool.require_keys()
    assert str(raised.value) == (
        "pool 'pool': Ada: the environment variable ADA_KEY is not set "
        "(api_key_env or {env: NAME} names it)"
    )


def test_an_empty_key_is_not_set_either(monkeypatch):
    monkeypatch.setenv("ADA_KEY", "")
    with pytest.raises(PoolError, match="ADA_KEY is not set"):
        make_pool({"name": "Ada", "api_key_env": "ADA_KEY"}).require_keys()


def test_every_key_that_is_not_set_is_named_at_once(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    pool = make_pool("Ada", {"name": "Bob", "api_key_env": "BOB_KEY"})
    with pytest.raises(PoolError, match=r"Ada: .*OPENAI_API_KEY.*Bob: .*BOB_KEY"):
        pool.require_keys()


def test_only_the_keys_of_those_who_are_asked_are_needed(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    pool = make_pool(
        "Ada",
        {"name": "Bob", "base_url": "http://127.0.0.1:9/v1"},
        controller={"model": "m", "api_key_env": "CONTROLLER_KEY"},
    )
    create_router_r1(pool, ScriptedController([]), models={"ada": FakeListChatModel(responses=[])})
    with pytest.raises(PoolError, match=r"Ada: .*OPENAI_API_KEY is not set") as raised:
        create_router_r1(pool, ScriptedController([]))
    assert "CONTROLLER_KEY" not in str(raised.value)
    with pytest.raises(ControllerError, match="CONTROLLER_KEY is not set"):
        parse_controller("pool", pool)


@pytest.mark.parametrize(
    "option", ["max_tokens", "max_completion_tokens", "timeout", "max_retries"]
)
def test_an_option_cannot_go_round_a_limit(option):
    with pytest.raises(ValueError, match=f"{option} is not an option; set max_|timeout_seconds"):
        make_pool({"name": "Ada", "options": {option: 9}})


@pytest.mark.parametrize(
    "build", [pool_tools, lambda pool: create_router_r1(pool, ScriptedController([]))]
)
def test_a_key_that_is_not_set_is_an_error_before_anything_is_asked(monkeypatch, build):
    monkeypatch.delenv("ADA_KEY", raising=False)
    with pytest.raises(PoolError, match="Ada: the environment variable ADA_KEY is not set"):
        build(make_pool({"name": "Ada", "api_key_env": "ADA_KEY"}))


def test_no_key_is_needed_where_every_model_is_given(monkeypatch):
    monkeypatch.delenv("ADA_KEY", raising=False)
    pool = make_pool({"name": "Ada", "api_key_env": "ADA_KEY"})
    controller = ScriptedController([search("Ada: ?"), "<answer> 42 </answer>"])
    graph = create_router_r1(pool, controller, models=models(pool)).compile()
    assert graph.invoke({"question": "?"})["ledger"]["candidates"]["Ada"]["failed_calls"] == 0


def sent_key(candidate: Candidate) -> str:
    return make_chat_model(candidate).openai_api_key.get_secret_value()


def test_the_openai_key_is_used_for_openai(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert sent_key(Candidate(name="Ada")) == KEY


def test_the_openai_key_is_never_sent_to_another_server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    candidate = Candidate(name="Ada", base_url="http://127.0.0.1:9/v1")
    assert candidate.key_variable is None
    assert sent_key(candidate) != KEY


def test_another_server_gets_the_key_that_is_meant_for_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ADA_KEY", "of-ada")
    candidate = Candidate(name="Ada", base_url="http://127.0.0.1:9/v1", api_key_env="ADA_KEY")
    assert sent_key(candidate) == "of-ada"


def test_descriptors_hold_no_way_to_reach_anybody():
    pool = make_pool(
        {
            "name": "Ada",
            "base_url": "http://127.0.0.1:9/v1",
            "api_key_env": "ADA_KEY",
            "options": {"organization": "mine"},
        },
        controller={"model": "m", "base_url": "http://127.0.0.1:9/v2"},
    )
    stored = pool.descriptors().model_dump_json()
    for secret in ("127.0.0.1", "ADA_KEY", "mine"):
        assert secret not in stored
    assert pool.descriptors().candidates[0].describe() == pool.candidates[0].describe()


# --------------------------------------------------------------------------------------- names


POOL = make_pool({"name": "Ada-7B Chat", "aliases": ["Ada", "Straße"]}, "Bob")


@pytest.mark.parametrize("name", ["Ada-7B Chat", "ada-7b CHAT", " Ada ", "STRASSE", "ada-7b_chat"])
def test_a_candidate_is_found_by_name_alias_or_tool_name_whatever_the_case(name):
    assert POOL.find(name) is POOL.candidates[0]


@pytest.mark.parametrize(
    "name", ["Ada-7B", "Ada-7B Chat 2", "Ad", "Bo", "Bobby", "", " ", "a" * 9999]
)
def test_a_part_of_a_name_or_more_than_it_finds_nobody(name):
    assert POOL.find(name) is None


def test_an_unknown_name_suggests_the_nearest_and_lists_all():
    assert POOL.unknown("ada-7b chatt") == (
        "no candidate 'ada-7b chatt' (did you mean 'Ada-7B Chat'?); candidates: Ada-7B Chat, Bob"
    )


def test_a_long_unknown_name_is_cut_in_the_message():
    assert len(POOL.unknown("x" * 100_000)) < 200


NAME = st.text(min_size=1, max_size=100).filter(
    lambda name: name == visible(name.strip()) and not re.search("[:<>\n\r\t]", name)
)


@given(NAME)
def test_every_name_makes_a_tool_name_that_openai_allows(name):
    candidate = Candidate(name=name)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", candidate.slug)


@pytest.mark.parametrize(
    ("one", "other"), [("日本", "中国"), ("a" * 70 + "b", "a" * 70 + "c"), ("é", "è")]
)
def test_names_that_differ_where_a_tool_name_cannot_have_different_tool_names(one, other):
    pool = make_pool(one, other)
    first, second = pool.candidates
    assert first.slug != second.slug
    assert pool.find(first.slug) is first


@given(NAME)
def test_every_name_is_found_as_it_is_written(name):
    pool = make_pool({"name": name})
    assert pool.find(name) is pool.candidates[0]


# --------------------------------------------------------------------------- descriptors, prices


def test_a_descriptor_says_price_latency_strengths_and_scores():
    candidate = Candidate(
        name="Ada",
        input_usd_per_mtok=0.3,
        output_usd_per_mtok=1.25,
        latency_seconds=0.5,
        strengths=["maps", "dates"],
        benchmarks={"geography": 0.9, "history": 0.5},
    )
    assert candidate.describe() == (
        "$0.3 in, $1.25 out per 1M tokens; about 0.5 s; good at maps, dates; "
        "scores geography 0.9, history 0.5"
    )


def test_brief_descriptors_go_by_subject_cheapest_first_whatever_the_order_of_the_pool():
    pool = CandidatePool.embedded()
    backwards = CandidatePool(name="backwards", candidates=pool.candidates[::-1])
    lines = dict(line.split(": ") for line in backwards.describe_briefly().splitlines())
    assert lines["all"] == "Hearthwyn 5 6, Dovrekin 6 6, Orrinthal 8 9, Magnivor 8 9"
    assert lines["music"] == "Melodrin 3 9"
    assert lines == dict(line.split(": ") for line in pool.describe_briefly().splitlines())


def test_a_descriptor_does_not_call_an_unknown_price_free():
    assert Candidate(name="Ada").describe() == "price unknown"
    free = Candidate(name="Ada", input_usd_per_mtok=0, output_usd_per_mtok=0)
    assert free.describe() == "$0 in, $0 out per 1M tokens"


def test_list_prices_are_per_million_tokens():
    candidate = Candidate(name="Ada", input_usd_per_mtok=2, output_usd_per_mtok=10)
    assert candidate.cost_usd(500_000, 100_000) == pytest.approx(2.0)
    assert Candidate(name="Ada").cost_usd(500_000, 100_000) == 0


PRICE = st.none() | st.floats(0, 100)


@given(st.text(), PRICE, PRICE, PRICE, PRICE, st.integers(1, 5000), st.integers(), st.integers())
@example("q", None, 1.0, 1.0, None, 1, 1, 0)  # two prices of caches, equal and above the list's
def test_no_call_costs_more_than_its_worst_case(
    query, input_usd, cached_usd, written_usd, output_usd, max_tokens, read, written
):
    candidate = Candidate(
        name="Ada",
        input_usd_per_mtok=input_usd,
        cached_input_usd_per_mtok=cached_usd,
        cache_write_usd_per_mtok=written_usd,
        output_usd_per_mtok=output_usd,
        max_tokens=max_tokens,
    )
    # The dearest tokenizer makes one token of each byte.
    tokens = len(query.encode(errors="replace"))
    parts = {"cached_input_tokens": abs(read) % (tokens + 1), "cache_write_tokens": abs(written)}
    worst = candidate.worst_case_usd(query)
    assert worst >= candidate.cost_usd(tokens, max_tokens, **parts)
    assert worst >= candidate.cost_usd(tokens, max_tokens)


def test_a_pool_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        make_pool().candidates[0].name = "Eve"


# ----------------------------------------------------------------------------------- providers


def test_any_factory_of_a_chat_model_is_a_provider(tmp_path):
    data = {"name": "Ada", "provider": "fakes:fake_chat_model", "options": {"text": "Rome"}}
    pool = CandidatePool.from_yaml(write(tmp_path, yaml.safe_dump({"candidates": [data]})))
    (tool,) = pool_tools(pool)
    assert isinstance(tool.model, FakeChat)
    assert tool.invoke({"query": "Italy's capital?"}) == "Rome"
    assert tool.model.queries == ["Italy's capital?"]


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        ("no_such_module:x", "no module 'no_such_module'"),
        ("fakes:no_such_factory", "module 'fakes' has no 'no_such_factory'"),
        ("fakes:not_a_chat_model", "returned str, not a LangChain chat model"),
        ("fakes:broken_factory", "RuntimeError: no model today"),
        ("fakes:__name__", "'str' object is not callable"),
        ("langchain", "Unable to infer model provider"),
    ],
)
def test_a_provider_that_cannot_be_used_is_named_with_its_candidate(provider, says):
    with pytest.raises(PoolError) as raised:
        make_chat_model(Candidate(name="Ada", provider=provider))
    message = str(raised.value)
    assert message.startswith(f"Ada: provider {provider!r}")
    assert says in message


def test_any_provider_that_langchain_knows_is_reached_by_name(serve, monkeypatch):
    needs("langchain")
    monkeypatch.setenv("ADA_KEY", KEY)
    server = serve(Reply("Rome"))
    settings = {"api_key_env": "ADA_KEY", "base_url": server.base_url, "max_tokens": 7}
    ada = Candidate(name="Ada", provider="langchain", model="openai:gpt-x", **settings)
    model = make_chat_model(ada)
    assert model.invoke("?").text == "Rome"
    assert (model.max_retries, model.request_timeout) == (0, ada.timeout_seconds)
    (request,) = server.requests
    assert (request.model, request.body["max_completion_tokens"]) == ("gpt-x", 7)


@pytest.mark.parametrize(
    ("model", "package"),
    [("groq:llama-x", "langchain-groq"), ("mistralai:small", "langchain-mistralai")],
)
def test_the_package_that_a_provider_lacks_is_named(model, package):
    needs("langchain")
    if find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is installed")
    says = (
        f"Ada: provider 'langchain': model '{model}' needs another package: pip install {package}"
    )
    with pytest.raises(PoolError, match=re.escape(says)):
        make_chat_model(Candidate(name="Ada", provider="langchain", model=model))


def test_a_factory_beside_the_pool_file_may_import_its_neighbours(tmp_path, monkeypatch):
    (tmp_path / "own_factories.py").write_text(
        "def make(settings):\n    from own_words import text\n    import fakes\n"
        "    return fakes.FakeChat(text=text)\n"
        "async def amake(settings):\n    return make(settings)\n"
    )
    (tmp_path / "own_words.py").write_text("text = 'Rome'")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    records = [{"name": n, "provider": f"own_factories:{n}"} for n in ("make", "amake")]
    pool = CandidatePool.from_yaml(write(tmp_path, yaml.safe_dump({"candidates": records})))
    assert [tool.invoke({"query": "?"}) for tool in pool_tools(pool)] == ["Rome", "Rome"]


def test_an_option_that_a_provider_does_not_take_is_an_error_of_the_pool(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(ConfigError, match="Ada: provider 'openai'") as raised:
        make_chat_model(Candidate(name="Ada", options={"n": 0}))
    assert KEY not in str(raised.value)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    file = write(tmp_path, "candidates:\n  - name: Ada\n    model: a\n    model: b\n")
    with pytest.raises(PoolError, match="line 4, column 5: the key 'model' is there twice"):
        CandidatePool.from_yaml(file)


def test_a_facts_file_stands_beside_the_pool_file(tmp_path, monkeypatch):
    (tmp_path / "facts.csv").write_text("subject,relation,object,domain\nX,author,Y,literature\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file = write(
        tmp_path, "candidates: [{name: A, provider: simulated, options: {facts: facts.csv}}]"
    )
    (tool,) = pool_tools(CandidatePool.from_yaml(file))
    assert tool.candidate.options["facts"] == str(tmp_path / "facts.csv")


def test_an_error_of_a_provider_names_the_file(tmp_path, monkeypatch):
    file = write(tmp_path, "candidates: [{name: A, provider: simulated, options: {hop: 2}}]")
    with pytest.raises(PoolError) as raised:
        pool_tools(CandidatePool.from_yaml(file))
    assert str(raised.value).startswith(f"{file}: ")
    assert "did you mean 'hops'?" in str(raised.value)
    monkeypatch.delenv("ADA_KEY", raising=False)
    file = write(tmp_path, "candidates: [{name: A, api_key_env: ADA_KEY}]")
    with pytest.raises(PoolError) as raised:
        pool_tools(CandidatePool.from_yaml(file))
    assert str(raised.value).startswith(f"{file}: A: the environment variable ADA_KEY is not set")


def test_descriptors_find_no_candidate_with_its_connection():
    ada = Candidate(name="Ada", base_url="https://one.example/v1")
    pool = CandidatePool(candidates=(ada, Candidate(name="Bob")))
    assert pool.find("Ada").base_url
    assert pool.descriptors().find("Ada").base_url is None
