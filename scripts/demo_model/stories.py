"""A grammar that writes short English stories whose characters, things and places stay consistent.

`write_story(rng, topic, length)` returns a Story: its text and the facts a reader could be asked about.  A story is
an opening, one or more plots (plots.py) and an ending; each sentence is one of several wordings, and details are
left out at random, so that lengths vary by themselves.  `python3 stories.py --seed 1 --count 3` prints samples.
"""

import argparse
import dataclasses
import random

import words


def article(phrase):
    """'an old key' for 'old key'."""
    return ("an " if phrase[0] in "aeiou" and not phrase.startswith("uni") else "a ") + phrase


def capital(text):
    return text[0].upper() + text[1:]


def join_and(items):
    items = list(items)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


class Character:
    """A named somebody with a kind ('fox'), a trait ('brave') and the pronouns that go with the name."""

    def __init__(self, rng, kind, taken):
        self.kind = kind
        female = kind in words.SHE_ONLY or (kind not in words.HE_ONLY and rng.random() < 0.5)
        names = [n for n in (words.SHE_NAMES if female else words.HE_NAMES) if n not in taken]
        self.name = rng.choice(names)
        self.trait = rng.choice(words.TRAITS)
        self.he, self.him, self.his = ("she", "her", "her") if female else ("he", "him", "his")
        self.He, self.His = capital(self.he), capital(self.his)
        self.the = "the " + kind

    def described(self):
        return article(f"{self.trait} {self.kind}")


@dataclasses.dataclass
class Topic:
    """What a request asked for; None leaves the choice to the grammar."""

    hero: str = None
    friend: str = None
    thing: str = None
    look: str = None
    place: str = None
    plot: str = None


@dataclasses.dataclass
class Story:
    text: str
    facts: dict
    plots: list


class Teller:
    """The state of one story being told: the cast, the thing, the places, and the sentences so far."""

    def __init__(self, rng, topic):
        self.rng = rng
        kinds = list(words.KINDS)
        hero_kind = topic.hero or rng.choice(kinds)
        friend_kind = topic.friend or rng.choice([k for k in kinds if k != hero_kind])
        self.hero = Character(rng, hero_kind, ())
        self.friend = Character(rng, friend_kind, (self.hero.name,))
        self.third = Character(rng, rng.choice([k for k in kinds if k not in (hero_kind, friend_kind)]),
                               (self.hero.name, self.friend.name))
        self.thing = topic.thing or rng.choice(list(words.OBJECTS))
        self.look = topic.look or rng.choice(words.OBJECT_LOOKS)
        self.home = topic.place or rng.choice(list(words.PLACES))
        others = [p for p in words.PLACES if p != self.home]
        self.far, self.other = rng.sample(others, 2)
        self.paragraphs = [[]]
        self.facts = {"hero": self.hero, "thing": self.thing, "look": self.look, "home": self.home}
        self.friend_known = False

    def at(self, place):
        return words.PLACES[place][0]

    def pick(self, *options):
        return self.rng.choice(options)

    def chance(self, probability):
        return self.rng.random() < probability

    def say(self, *options):
        """Adds one of the wordings."""
        self.paragraphs[-1].append(capital(self.rng.choice(options)))

    def maybe(self, probability, *options):
        if self.chance(probability):
            self.say(*options)

    def paragraph(self):
        if self.paragraphs[-1]:
            self.paragraphs.append([])

    def new_thing(self):
        """A later plot of the same story is about another thing."""
        self.thing = self.rng.choice([o for o in words.OBJECTS if o != self.thing])
        self.look = self.rng.choice(words.OBJECT_LOOKS)

    def meet_friend(self, where):
        """Brings the friend into the story, once."""
        if self.friend_known:
            return
        hero, friend = self.hero, self.friend
        self.friend_known = True
        self.facts["friend"] = friend
        self.say(f"{where} {hero.name} met {article(friend.kind)} named {friend.name}.",
                 f"{where} {article(friend.kind)} named {friend.name} came along.",
                 f"{where} {hero.he} saw {article(friend.kind)}. The name of {friend.the} was {friend.name}.")

    def text(self):
        return "\n\n".join(" ".join(p) for p in self.paragraphs if p)


def opening(t):
    hero = t.hero
    size = t.rng.choice(words.SIZES)
    t.say(f"Once upon a time there was {article(size + ' ' + hero.kind)} named {hero.name}.",
          f"Once upon a time {article(hero.kind)} named {hero.name} lived {t.at(t.home)}.",
          f"There once was {hero.described()} named {hero.name}.",
          f"Long ago, {article(size + ' ' + hero.kind)} lived {t.at(t.home)}. {hero.His} name was {hero.name}.",
          f"{capital(t.at(t.home))} lived {hero.described()} named {hero.name}.",
          f"{hero.name} was {hero.described()} who lived {t.at(t.home)}.")
    told = " ".join(t.paragraphs[-1])
    if t.home not in told:
        t.say(f"{hero.He} lived {t.at(t.home)}.", f"{hero.His} home was {t.at(t.home)}.")
    if hero.trait not in told:
        t.maybe(0.5, f"{hero.name} was very {hero.trait}.", f"Everybody knew that {hero.name} was {hero.trait}.")
    t.maybe(0.3, f"Every morning {hero.he} looked at the sky and smiled.",
            f"{hero.He} liked to walk and to think.", f"{hero.He} had a small bed and a big window.",
            f"In the evening {hero.he} liked to count the stars.")


def ending(t, plot):
    hero, friend = t.hero, t.friend
    t.paragraph()
    lesson = t.rng.choice(words.LESSONS[plot])
    t.facts["lesson"] = lesson
    if t.chance(0.6):
        t.say(f"From that day on {hero.name} knew that {lesson}.", f"{hero.name} had learned that {lesson}.",
              f"And {hero.he} never forgot that {lesson}.", f'"Now I know," said {hero.name}, "that {lesson}."')
    if t.friend_known and t.chance(0.6):
        t.say(f"{hero.name} and {friend.name} stayed friends for ever.",
              f"{hero.name} and {friend.name} met every day after that.",
              f"And so {hero.the} and {friend.the} became the best of friends.",
              f"That night {hero.name} and {friend.name} looked at the moon and were happy.")
    else:
        t.say(f"{hero.name} went home and slept well.", f"{hero.name} was happy.",
              f"That evening {hero.name} sat by the fire and smiled.",
              f"{hero.name} fell asleep with a smile.")
    t.maybe(0.25, "The end.")


def keepsake(t):
    """A sentence that brings the thing in where the plot may leave it out."""
    owned = article(f"{t.look} {t.thing}")
    t.say(f"{t.hero.He} had {owned} and took it everywhere.", f"{t.hero.name} always carried {owned}.")


def write_beginning(rng, topic):
    """The opening of a story, with everything that was asked for in a few sentences."""
    t = Teller(rng, topic)
    opening(t)
    if topic.thing:
        keepsake(t)
    if topic.friend:
        t.meet_friend(rng.choice(words.TIMES))
    return t.text()


def write_story(rng, topic=None, length=None):
    """length: 'short', 'normal' or 'long'; None draws one."""
    from plots import PLOTS  # plots.py needs the helpers above

    topic = topic or Topic()
    length = length or rng.choices(("short", "normal", "long"), (3, 6, 2))[0]
    t = Teller(rng, topic)
    first = topic.plot or rng.choice(list(PLOTS))
    chosen = [first]
    if length == "long":
        chosen += rng.sample([p for p in PLOTS if p not in (first, "friend", "party")], rng.choice((1, 1, 2)))
    opening(t)
    if topic.thing and first in ("build", "fear", "noise", "share"):
        keepsake(t)
    for index, plot in enumerate(chosen):
        if length != "short":
            t.paragraph()
        when = rng.choice(words.TIMES) if index == 0 else rng.choice(
            ("The next day", "Some days later", "A week later", "When winter came", "In the next spring"))
        if index > 0:
            t.new_thing()
        elif length != "short" and when in words.PLAIN_TIMES:
            t.maybe(0.4, rng.choice(words.WEATHER))
        PLOTS[plot](t, when, length == "short")
    ending(t, chosen[-1])
    if length == "short":
        t.paragraphs = [sum(t.paragraphs, [])]
    return Story(t.text(), t.facts, chosen)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=3)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    for _ in range(options.count):
        story = write_story(rng)
        print(f"--- {story.plots}, {len(story.text.split())} words\n{story.text}\n")


if __name__ == "__main__":
    main()
