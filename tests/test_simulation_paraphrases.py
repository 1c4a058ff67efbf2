"""Candidates read English, not templates: questions as people put them, written by hand."""

import pytest

from router_r1_graph import CandidatePool
from router_r1_graph.simulation import Ask, World, generate, read_question, reply_text_and_tokens
from router_r1_graph.simulation.meaning import topic

PARAPHRASES = {
    "capital": [
        "What's the capital of {x}?",
        "Could you tell me the capital of {x}?",
        "the capital city of {x}, please?",
        "Tell me the capital of {x}.",
        "Do you know the capital of {x}?",
        "I would like to know the capital of {x}",
        "which city is the capital of {x}",
        "Please name the capital of {x}.",
        "capital of {x}?",
        "So what is the capital of {x}?",
    ],
    "author": [
        "Who authored {x}?",
        "Tell me who wrote {x}",
        "Who was {x} written by?",
        "By whom was {x} written?",
        "{x} was written by whom?",
        "Who's the author of {x}?",
        "Who wrote the novel {x}?",
        "Can you tell me who wrote the book '{x}'?",
        "Who penned {x}?",
        'Who is the author of "{x}"?',
        "What is the name of the author of {x}?",
    ],
    "artist": [
        "Who painted {x}?",
        "Who sculpted {x}?",
        "Who made {x}?",
        "Who painted the painting {x}?",
        "By whom was {x} painted?",
        "Who is the painter of {x}?",
    ],
    "director": [
        "Who directed the film {x}?",
        "Who directed the movie {x}?",
        "By whom was {x} directed?",
        "Could you please tell me who directed {x}?",
    ],
    "birth_year": [
        "In what year was {x} born?",
        "What year was {x} born?",
        "Which year was {x} born?",
        "Do you know when was {x} born?",
    ],
    "birth_country": [
        "Where was {x} born?",
        "What country was {x} from?",
        "In what country was {x} born?",
        "What country was {x} born in?",
    ],
    "death_year": ["What year did {x} die?", "In what year did {x} die?"],
    "currency": [
        "What currency does {x} use?",
        "What's the currency of {x}?",
        "In what currency does one pay in {x}?",
        "Which money does {x} use?",
    ],
}
NAMES = {
    "capital": "Peru",
    "author": "Emma",
    "artist": "Guernica",
    "director": "Psycho",
    "birth_year": "Jane Austen",
    "birth_country": "Jane Austen",
    "death_year": "Jane Austen",
    "currency": "Japan",
}


@pytest.mark.parametrize(
    ("relation", "form"), [(r, form) for r, forms in PARAPHRASES.items() for form in forms]
)
def test_a_paraphrase_is_read_as_what_it_asks(relation, form):
    assert read_question(form.replace("{x}", NAMES[relation])) == Ask(relation, NAMES[relation])


def test_a_candidate_that_knows_answers_a_paraphrase_as_it_answers_the_plain_question():
    knowing = CandidatePool.embedded().find("Magnivor")
    assert knowing is not None
    plain = reply_text_and_tokens(knowing, "Who is the artist of Guernica?").answer
    assert reply_text_and_tokens(knowing, "Who painted Guernica?").answer == plain


def test_a_test_question_is_in_training_in_no_wording_and_by_no_detour():
    world = World.embedded()
    train = {topic(q.structure) for q in generate(world, split="train", n=8000, seed=1)}
    test = [q for q in generate(world, split="test", n=2000, seed=1)]
    assert not [q.text for q in test if topic(q.structure) in train]
    assert not [q.text for q in test if "city_country(birth_city" in repr(q.structure)]


def test_no_verb_is_left_over_at_the_end_of_a_nested_question():
    questions = generate(World.embedded(), split="test", n=2000, seed=4, hops=[3, 4])
    doubled = ("born lies", "lies flow", "appears was born", "lie lie", "born lie", "is named was")
    assert not [q.text for q in questions if any(words in q.text for words in doubled)]
