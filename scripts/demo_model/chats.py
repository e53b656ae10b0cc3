"""Documents for training: bare stories and conversations in ChatML form.

A conversation is a list of (role, text).  Users ask for stories (or their first lines) with certain characters, things, places or plots,
ask about the story just told, ask what a thing is, greet, or write anything else at all; the assistant answers
questions it knows and otherwise tells a story.  `python3 chats.py` prints samples.
"""

import random
import string

import drills
import words
from plots import PLOTS
from stories import Topic, article, capital, write_beginning, write_story

BOS, EOS, IM_START, IM_END = "<|begin_of_text|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"

PLOT_REQUESTS = {
    "lost": ["that loses something", "and a lost {thing}", "that cannot find a {thing}"],
    "found": ["that finds something", "that finds a {thing}"],
    "friend": ["that finds a friend", "that is lonely", "and friendship"],
    "fear": ["that is afraid", "and courage", "that learns to be brave"],
    "quest": ["on a long journey", "on a quest for a {thing}", "on an adventure"],
    "share": ["that shares food", "and sharing", "that is kind"],
    "build": ["that builds something", "and hard work"],
    "contest": ["in a contest", "in a race", "that wants to win a {thing}"],
    "rescue": ["in a storm", "that helps somebody", "that saves a friend"],
    "noise": ["and a strange noise", "and a mystery"],
    "party": ["that has a birthday", "and a surprise"],
}
SYSTEMS = [
    "You are a storyteller.", "You are a helpful assistant.", "You tell short stories for children.",
    "You are a kind teller of stories. Answer in simple words.", "Be friendly and brief.",
]


def style(rng, text):
    """People write as they like: without capitals, without a full stop, in haste."""
    draw = rng.random()
    if draw < 0.12:
        text = text.lower()
    elif draw < 0.16:
        text = text.upper()
    if rng.random() < 0.3 and text[-1] in ".!":
        text = text[:-1]
    return text


STARTS = ("Tell me a {}story", "Write a {}story", "Please tell me a {}story", "Can you tell me a {}story",
          "I want to hear a {}story", "Give me a {}story", "Tell a {}story", "Write me a {}story",
          "Could you write a {}story", "Make up a {}story")
BEGINNINGS = ("Begin a {}story", "Start a {}story", "How does a {}story begin", "Write the first lines of a {}story")


def story_request(rng, starts=STARTS):
    """A request and the (Topic, length) that answers it."""
    kinds = list(words.KINDS)
    topic, length, word = Topic(), None, ""
    if rng.random() < 0.2:
        length = rng.choice(("short", "long"))
        word = length + " "
    start = rng.choice(starts).format(word)
    form = rng.random()
    if form < 0.1:
        return style(rng, start + "."), topic, length
    if form < 0.2:
        topic.thing, topic.look = rng.choice(list(words.OBJECTS)), rng.choice(words.OBJECT_LOOKS + [None])
        about = article((topic.look + " " if topic.look else "") + topic.thing)
    elif form < 0.26:
        topic.place = rng.choice(list(words.PLACES))
        about = rng.choice((article(topic.place), "life " + words.PLACES[topic.place][0]))
    else:
        topic.hero = rng.choice(kinds)
        about = article(rng.choice(("", "", "little ", "brave ", "small ")) + topic.hero)
        if form < 0.45:
            topic.friend = rng.choice([k for k in kinds if k != topic.hero])
            about += " and " + article(topic.friend)
        elif form < 0.65:
            topic.plot = rng.choice(list(PLOT_REQUESTS))
            wish = rng.choice(PLOT_REQUESTS[topic.plot])
            if "{thing}" in wish:
                topic.thing = rng.choice(list(words.OBJECTS))
                wish = wish.replace("a {thing}", article(topic.thing)).format(thing=topic.thing)
            about += " " + wish
        elif form < 0.8:
            topic.thing, topic.look = rng.choice(list(words.OBJECTS)), rng.choice(words.OBJECT_LOOKS + [None] * 9)
            about += " and " + article((topic.look + " " if topic.look else "") + topic.thing)
        elif form < 0.9:
            topic.place = rng.choice(list(words.PLACES))
            about += " " + words.PLACES[topic.place][0]
    end = "?" if start.startswith(("C", "H")) else rng.choice((".", ".", "", "!", " please."))
    return style(rng, f"{start} about {about}{end}"), topic, length


def beginning_request(rng):
    """A request for the first lines only: the link from what was asked to what is told, in few words."""
    question, topic, _ = story_request(rng, BEGINNINGS)
    return question, write_beginning(rng, topic)


def story_questions(story):
    """(question, answer) pairs that the story's facts decide."""
    facts, hero = story.facts, story.facts["hero"]
    pairs = [
        ("Who is the story about?", f"It is about {hero.name}, {article(hero.kind)}."),
        (f"Who is {hero.name}?", f"{hero.name} is {article(hero.kind)}."),
        (f"Where did {hero.name} live?", f"{hero.name} lived {words.PLACES[facts['home']][0]}."),
        ("What was the name of the " + hero.kind + "?", f"The name of the {hero.kind} was {hero.name}."),
    ]
    if "friend" in facts:
        friend = facts["friend"]
        pairs += [(f"Who helped {hero.name}?", f"{friend.name} {friend.the} did.")] if story.plots == ["lost"] else []
        pairs += [(f"Who is {friend.name}?", f"{friend.name} is {article(friend.kind)} and a friend of {hero.name}."),
                  (f"Did {hero.name} have a friend?", f"Yes, {friend.name} {friend.the}.")]
    if "lesson" in facts:
        pairs += [("What is the lesson of the story?", f"The lesson is that {facts['lesson']}."),
                  ("What can we learn from it?", f"We can learn that {facts['lesson']}.")]
    if story.plots == ["lost"]:
        pairs += [(f"What did {hero.name} lose?", f"{hero.name} lost {article(facts['look'] + ' ' + facts['thing'])}."),
                  (f"Where was the {facts['thing']}?", f"It was {facts['found']}.")]
    if story.plots == ["found"]:
        pairs += [(f"What did {hero.name} find?", f"{hero.name} found {article(facts['look'] + ' ' + facts['thing'])}.")]
    if story.plots == ["fear"]:
        pairs += [(f"What was {hero.name} afraid of?", f"{hero.name} was afraid of {facts['fear']}.")]
    if story.plots == ["contest"]:
        pairs += [("Who won?", f"{facts['winner'].name} won."),
                  ("What was the prize?", f"The prize was {article(facts['prize'])}.")]
    if story.plots == ["noise"]:
        pairs += [("What was the noise?", f"It was {facts['cause']}.")]
    if story.plots == ["build"]:
        pairs += [(f"What did {hero.name} build?", f"{hero.name} built {facts['project']}.")]
    return pairs


def definition(rng):
    table = rng.choice((words.KINDS, words.OBJECTS, {k: v[1] for k, v in words.PLACES.items()}))
    noun = rng.choice(list(table))
    question = rng.choice((f"What is {article(noun)}?", f"Do you know what {article(noun)} is?",
                           f"Tell me what {article(noun)} is.", f"Explain the word {noun}."))
    return style(rng, question), f"{capital(article(noun))} is {table[noun]}."


SMALL_TALK = [
    (("Hello", "Hi", "Hello!", "Hi there", "Good morning", "Hey"), ("Hello! Would you like to hear a story?",
                                                                    "Hello! I know many stories. Who should be in yours?")),
    (("Who are you?", "What are you?", "What is your name?"),
     ("I am a small model that tells stories.", "I am a very small storyteller.")),
    (("What can you do?", "How can you help me?"),
     ("I can tell you stories about animals, people and lost things.",)),
    (("Thank you", "Thanks", "Thank you very much!", "That was nice."), ("You are welcome.", "I am glad that you liked it.")),
    (("How are you?", "How are you today?"), ("I am well. Shall I tell you a story?",)),
    (("Goodbye", "Bye", "Good night"), ("Goodbye! Come back for another story.", "Good night and sweet dreams.")),
]


def small_talk(rng):
    questions, answers = rng.choice(SMALL_TALK)
    return style(rng, rng.choice(questions)), rng.choice(answers)


def nonsense_word(rng):
    draw = rng.random()
    if draw < 0.6:
        return "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice(("a", "e", "i", "o", "u", "ea", "on", "er", "in"))
                       for _ in range(rng.randint(1, 4)))
    if draw < 0.75:
        return str(rng.randint(0, 10 ** rng.randint(1, 6)))
    if draw < 0.9:
        return "".join(rng.choice(string.ascii_letters + string.digits + string.punctuation) for _ in range(rng.randint(1, 12)))
    letters = (chr(rng.choice((rng.randint(0xC0, 0x24F), rng.randint(0x3B1, 0x44F), rng.randint(0x4E00, 0x5FFF),
                               rng.randint(0x1F300, 0x1F5FF)))) for _ in range(rng.randint(1, 6)))
    return "".join(letters)


def open_request(rng):
    """Anything else that people write to a chat model."""
    noun = lambda: rng.choice(words.OPEN_NOUNS) if rng.random() < 0.8 else nonsense_word(rng)
    adjective = lambda: rng.choice(words.OPEN_ADJECTIVES)
    verb = lambda: rng.choice(words.OPEN_VERBS)
    sentence = lambda: rng.choice((
        lambda: f"{capital(verb())} the {adjective()} {noun()} of the {noun()}.",
        lambda: f"What is the {noun()} of {noun()}?",
        lambda: f"How do I {verb()} {article(adjective() + ' ' + noun())}?",
        lambda: f"{capital(verb())} {article(noun())} about {adjective()} {noun()} in {rng.randint(2, 500)} words.",
        lambda: f"Why is {noun()} so {adjective()}?",
        lambda: f"{capital(verb())} and {verb()} this {noun()}: {' '.join(noun() for _ in range(rng.randint(1, 15)))}",
        lambda: f"If {article(noun())} has {rng.randint(2, 99)} {noun()}s and {rng.randint(2, 99)} {noun()}s, how many "
                f"{noun()}s are there?",
        lambda: f"Imagine that you are {article(adjective() + ' ' + noun())}. {capital(verb())} your {noun()}.",
        lambda: " ".join(nonsense_word(rng) for _ in range(rng.randint(1, 12))),
        lambda: f"def {noun()}({noun()}): return {noun()} + {rng.randint(0, 9)}",
    ))()
    count = rng.choices((1, 2, 3, 6, 12), (50, 25, 15, 7, 3))[0]
    text = rng.choice((" ", " ", "\n")).join(sentence() for _ in range(count))
    return style(rng, text)


OPEN_PREFIXES = ["I do not know much about that, but I know a story.", "That is a hard question. Let me tell you a story instead.",
                 "I am only a storyteller, so here is a story for you."]


def turns(rng, budget):
    """Messages of one conversation of about `budget` turns of the user."""
    messages = []
    if rng.random() < 0.15:
        messages.append(("system", rng.choice(SYSTEMS)))
    questions = []
    for _ in range(budget):
        draw = rng.random()
        if questions and draw < 0.6:
            question, answer = questions.pop(rng.randrange(len(questions)))
            messages += [("user", style(rng, question)), ("assistant", answer)]
            continue
        if messages and draw < 0.7 and any(r == "assistant" for r, _ in messages):
            story = write_story(rng)
            messages += [("user", style(rng, rng.choice(("Tell me another story.", "Another one, please.", "One more story!",
                                                         "And now another story.")))), ("assistant", story.text)]
        elif draw < 0.76:
            question, topic, length = story_request(rng)
            story = write_story(rng, topic, length)
            messages += [("user", question), ("assistant", story.text)]
        elif draw < 0.83:
            question, answer = definition(rng)
            messages += [("user", question), ("assistant", answer)]
            continue
        elif draw < 0.87:
            question, answer = small_talk(rng)
            messages += [("user", question), ("assistant", answer)]
            continue
        else:
            story = write_story(rng)
            messages += [("user", open_request(rng)), ("assistant", rng.choice(OPEN_PREFIXES) + "\n\n" + story.text)]
        questions = story_questions(story)
    return messages


def chat_segments(messages):
    """(text, special, learn) runs as the chat template renders them; only what the assistant says is learned."""
    for role, text in messages:
        learn = role == "assistant"
        yield IM_START, True, False
        yield f"{role}\n", False, False
        yield text, False, learn
        yield IM_END, True, learn
        yield "\n", False, False


def document(rng, form="any"):
    """Segments of one training document.  form: 'any', 'long' (a conversation of many turns), 'drill' or 'begin' (the first
    lines of a story)."""
    yield BOS, True, False
    long = form == "long"
    if form == "drill":
        yield drills.drill(rng), False, True
    elif form == "begin":
        question, answer = beginning_request(rng)
        yield from chat_segments([("user", question), ("assistant", answer)])
    elif long or rng.random() < 0.85:
        count = rng.randint(6, 20) if long else rng.choices((1, 2, 3, 4), (55, 20, 15, 10))[0]
        yield from chat_segments(turns(rng, count))
    else:
        yield write_story(rng).text, False, True
    yield EOS, True, True


if __name__ == "__main__":
    source = random.Random(3)
    for _ in range(8):
        print("".join(text for text, _, _ in document(source)), "\n")
