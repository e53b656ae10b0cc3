"""Very short texts in which almost every word has been said before: the first lessons of the model.

A story repeats its names and things at a distance of hundreds of tokens, and a fresh model takes very long to find out
that it may look them up.  In a dozen words the same habit is learned in minutes, and it stays.
"""

import random

import words
from stories import article, capital


class Fact:
    """Somebody, and one statement of each sort about them with the question that it answers."""

    def __init__(self, rng, name, he):
        self.name, self.he = name, he
        self.kind = rng.choice(list(words.KINDS))
        self.look, self.thing = rng.choice(words.OBJECT_LOOKS), rng.choice(list(words.OBJECTS))
        self.place = words.PLACES[rng.choice(list(words.PLACES))][0]

    def statements(self):
        owned = article(f"{self.look} {self.thing}")
        return [
            (f"{self.name} is {article(self.kind)}.", f"Who is {self.name}?"),
            (f"{self.name} has {owned}.", f"What does {self.name} have?"),
            (f"{self.name} lives {self.place}.", f"Where does {self.name} live?"),
        ]

    def repetitions(self):
        return [
            f"The {self.thing} of {self.name} is {self.look}.",
            f"{self.name} the {self.kind} likes the {self.look} {self.thing}.",
            f"The {self.kind} lost the {self.thing}. Where is the {self.thing}?",
            f'"My {self.thing}!" said {self.name}.',
            f"{self.name} was happy. {capital(self.he)} loved the {self.thing}.",
            f"The name of the {self.kind} is {self.name}.",
        ]


def cast(rng, count):
    names = rng.sample([(n, "he") for n in words.HE_NAMES] + [(n, "she") for n in words.SHE_NAMES], count)
    return [Fact(rng, name, he) for name, he in names]


def drill(rng):
    """One text of about 20 to 60 tokens."""
    facts = cast(rng, rng.choice((1, 1, 2, 2, 3)))
    told = [(fact, *rng.choice(fact.statements())) for fact in facts]
    if len(facts) == 1:
        told = [(facts[0], *s) for s in facts[0].statements()]
    lines = [statement for _, statement, _ in told]
    if rng.random() < 0.5:
        lines += rng.sample(facts[0].repetitions(), 2) if len(facts) == 1 else []
    rng.shuffle(told)
    lines += [f"{question} {statement}" for _, statement, question in told[:2]]
    return " ".join(lines)


if __name__ == "__main__":
    source = random.Random(2)
    for _ in range(8):
        print(drill(source))
