"""A gold answer is found whatever joins it to other words, and never in another number."""

import pytest

from router_r1_graph.answers import contains, gold_answers
from router_r1_graph.evaluation.scorers import choice, number, stated

HELD = [
    ("Rome, n&#111;!", "no"),
    *(
        (r"So \boxed{12}", "12"),
        ("x=12", "12"),
        ("It is 12.", "12"),
        ("共12个", "12"),
        ("\uff11\uff12", "12"),
    ),
    *(("1,200 km", "1200"), ("1200", "1,200"), ("$1{,}200.00$", "1200"), (r"\frac{1}{2}", "1/2")),
    *(("Answer:Paris", "Paris"), ("**Answer:**Paris", "Paris"), ("<b>Paris</b>", "Paris")),
    *(('{"answer":"Paris"}', "Paris"), ("Paris/France", "Paris"), ("(Paris)", "Paris")),
    *((r"$\text{Paris}$", "Paris"), ("Paris's mayor", "Paris"), ("New <b>York</b>", "New York")),
    *(("答案是北京。", "北京"), ("答えは東京です。", "東京"), ("서울입니다", "서울")),
    *(("เมืองหลวงคือกรุงเทพครับ", "กรุงเทพ"), ("McDonalds", "McDonald's"), (r"\boxed{Yes}", "yes")),
    *(
        (text, "yes")
        for text in ("It is yes.", "Based on the context, yes.", "Yes it is. No more.")
    ),
    *(
        ("Well, no.", "no"),
        ("答案\uff1a是", "是"),
        ("答案是否", "否"),
        ("It is true.", "True"),
        ("A", "A"),
    ),
    *(("12km", "12 km"), ("12 km", "12km"), ("H₂O", "H2O"), ("C++", "C++"), ("B-52", "B52")),
    *(("The answer is Yahoo! Inc.", "Yahoo! Inc."), ("I can't say why. The answer is A.", "A")),
]
NOT_HELD = [
    *((text, "12") for text in ("12.5", "1,200", "112", "120", "is -12", "12:30", "12/5", "0.12")),
    *(("Parisian", "Paris"), ("不是", "是"), ("答案是上海。", "北京"), ("1914-1918", "1914")),
    *(("12.5", "125"), ("-5", "5"), ("1.5%", "15"), ("1,5", "1.5"), ("5", "-5"), ("1.200", "1200")),
    *(
        ("C++", "C"),
        ("C", "C++"),
        ("I know C# well", "C"),
        ("是不是", "是"),
        ("It is not true.", "True"),
    ),
    *(("No doubt: yes", "yes"), ("Yes it is. No.", "no"), ("the 1970s", "1970"), ("12th", "12")),
    ("The answer is London. Paris is second.", "Paris"),
]


@pytest.mark.parametrize(("reply", "gold"), HELD)
def test_a_gold_answer_is_found_in_any_form(reply, gold):
    assert stated(reply, [gold]) == 1.0


@pytest.mark.parametrize(("reply", "gold"), NOT_HELD)
def test_another_number_or_word_is_not_taken_for_it(reply, gold):
    assert stated(reply, [gold]) == 0.0


def test_what_matches_exactly_is_stated_and_contained():
    assert stated("True", gold_answers(True)) == stated("False.", gold_answers(False)) == 1.0
    assert stated("No, that is not true.", gold_answers(True)) == 0.0
    assert stated("Rome", ["no", "Rome"]) == 1.0
    assert contains("A", ["A"]) == 1.0


@pytest.mark.parametrize(
    "reply",
    [
        *(
            "B",
            "b",
            "(b)",
            "b.",
            "**B**",
            r"\boxed{B}",
            r"\boxed{\text{B}}",
            "B: Plan A",
            "Option B",
        ),
        *("B. I chose this because A dog is one.", "B) A dog is a mammal", "(B) Vitamin C"),
        *(
            "The answer is B. I am sure.",
            "I am sure that it is B",
            "So I would go with B, I think.",
        ),
        *(
            "A) is wrong, so the answer must be B",
            "A) Rome\nB) Paris\nIt is (B).",
            "B because I know",
        ),
        "I am not sure. <answer>B) I, Claudius</answer>",
    ],
)
@pytest.mark.parametrize("gold", ["B", "b", "B) Paris", "(B) Paris", "B. Paris"])
def test_a_choice_is_the_letter_that_is_chosen(reply, gold):
    assert choice(reply, [gold]) == 1.0
    assert choice(reply, ["A"]) == choice(reply, ["I"]) == 0.0


@pytest.mark.parametrize(
    "reply", ["A", "A.", "(A) Rome", "A: I think so", "A is right", "So it is A."]
)
def test_an_a_that_is_marked_or_alone_is_a_letter(reply):
    assert choice(reply, ["A"]) == 1.0


@pytest.mark.parametrize("reply", ["A dog", "I think so", "", "K", "a cat"])
def test_an_article_and_a_pronoun_are_no_choice(reply):
    assert [letter for letter in "ABCDEFGHIJ" if choice(reply, [letter])] == []


@pytest.mark.parametrize(
    ("reply", "gold", "score"),
    [
        *(("It was 1914-1918", "1918", 1), ("pages 3-5", "5", 1), ("x=\u22125", "-5", 1)),
        *(("-5", "\u22125", 1), ("12 km^2", "12", 1), ("1e999", "1e998", 0), ("5", "-5", 0)),
        *(("44 of CO2", "44", 1), ("1,234.5", "1234.5", 1), ("12km", "12", 1), ("1e3", "1000", 1)),
        *(("f(2)-5", "5", 1), ("1 and .5", "0.5", 1), ("\u517112\u4e2a", "12", 1)),
    ],
)
def test_a_number_has_a_sign_of_its_own_only(reply, gold, score):
    assert number(reply, [gold]) == score


@pytest.mark.parametrize("score", [choice, number, stated])
@pytest.mark.parametrize("part", ["1,", "A) ", "1.0", "-", "yes,", "^"])
def test_a_long_text_is_scored(score, part):
    # In quadratic time this would take hours, which pytest-timeout does not allow.
    assert score(part * (10**6 // len(part)), ["B", "yes", "C", "12"]) in (0.0, 1.0)
