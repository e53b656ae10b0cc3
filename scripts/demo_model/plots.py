"""The plots of the story grammar.  Each takes the teller, the words for the time, and whether to be brief."""

import words
from stories import article, capital


def lost(t, when, brief):
    hero, friend, thing = t.hero, t.friend, t.thing
    t.say(f"{hero.He} had {article(t.look + ' ' + thing)} that {hero.he} loved very much.",
          f"{hero.name} owned {article(t.look + ' ' + thing)}.",
          f"The dearest thing {hero.he} had was {article(t.look + ' ' + thing)}.")
    t.say(f"{when} the {thing} was gone.", f"{when} {hero.name} could not find the {thing}.",
          f"{when} {hero.name} lost the {t.look} {thing}.")
    t.maybe(0.6, f'"Oh no," said {hero.name}. "Where is my {thing}?"', f"{hero.name} was very sad.",
            f'{hero.name} began to cry. "I must find my {thing}," {hero.he} said.')
    wrong = t.rng.sample(words.HIDING_SPOTS, 2)
    if not brief:
        t.say(f"{hero.He} looked {wrong[0]}, but the {thing} was not there.",
              f"First {hero.he} looked {t.at(t.far)}, but there was no {thing}.",
              f"{hero.He} searched all day and found nothing.")
    t.meet_friend(t.pick("On the way", "Then", "After a while", f"{capital(t.at(t.far))}"))
    t.say(f'"Why are you sad?" asked {friend.name}. "I have lost my {thing}," said {hero.name}.',
          f'"Can I help you?" asked {friend.name}. "Please help me find my {thing}," said {hero.name}.',
          f'"What are you looking for?" asked {friend.the}. "For my {t.look} {thing}," said {hero.name}.')
    if not brief:
        t.maybe(0.7, f'"Let us look together," said {friend.name}.', f'"Four eyes see more than two," said {friend.name}.',
                f"{friend.name} thought for a moment and had an idea.")
    t.say(f"Together they found the {thing} {wrong[1]}.", f"They looked and looked, and there was the {thing}, {wrong[1]}.",
          f"At last {friend.name} saw something {t.pick('shine', 'move')} {wrong[1]}. It was the {thing}!")
    t.facts["found"] = wrong[1]
    t.maybe(0.7, f'"Thank you!" said {hero.name} and hugged {friend.him}.',
            f"{hero.name} jumped with joy.", f'"You are a true friend," said {hero.name}.')


def found(t, when, brief):
    hero, thing = t.hero, t.thing
    spot = t.rng.choice(words.HIDING_SPOTS)
    t.facts["found"] = spot
    t.say(f"{when} {hero.name} found {article(t.look + ' ' + thing)} {spot}.",
          f"{when}, {t.at(t.far)}, {hero.name} saw {article(t.look + ' ' + thing)} {spot}.",
          f"{when} {hero.name} was walking along when {hero.he} saw {article(t.look + ' ' + thing)} {spot}.")
    t.maybe(0.6, f'"Whose {thing} is this?" {hero.he} said.', f'"How beautiful!" said {hero.name}.',
            f"{hero.name} wanted to keep it.")
    if not brief:
        t.say(f"But {hero.he} thought that somebody might miss it.",
              f'"Somebody must be looking for this {thing}," {hero.he} thought.',
              f"Then {hero.he} saw a name written on the {thing}.")
        t.maybe(0.6, f"{hero.name} asked {t.third.name} {t.third.the}, but it was not {t.third.his} {thing}.",
                f"{hero.name} asked everybody {t.at(t.home)}.")
    known = t.friend_known
    t.meet_friend("Soon", )
    friend = t.friend
    if known:
        t.say(f"It was the {thing} of {friend.name}.", f'"That is my {thing}!" cried {friend.name}.')
    else:
        t.say(f'"That is my {thing}!" cried {friend.name}.', f'"Have you seen my {thing}?" asked {friend.name}.',
              f"{friend.name} was looking for {friend.his} {thing}.")
    t.say(f"{hero.name} gave it back at once.", f'"Here it is," said {hero.name} and gave it back.',
          f"{hero.name} was glad to give the {thing} back to {friend.him}.")
    t.maybe(0.7, f"{friend.name} was so happy that {friend.he} gave {hero.name} {t.pick(*words.TREATS)}.",
            f'"You are very honest," said {friend.name}.', f'"Thank you, {hero.name}," said {friend.the}.')


def friend(t, when, brief):
    hero, friend = t.hero, t.friend
    t.say(f"{hero.He} was often alone and wished for a friend.", f"But {hero.name} had nobody to play with.",
          f"{hero.name} was lonely.")
    t.meet_friend(when)
    t.say(f"At first {friend.name} did not say a word.", f"{friend.name} was shy and hid {t.pick(*words.HIDING_SPOTS)}.",
          f'"Hello," said {hero.name}. "Hello," said {friend.name} very quietly.')
    if not brief:
        t.maybe(0.6, f'"Do not be afraid," said {hero.name}. "I only want to play."',
                f"{hero.name} waited and smiled.", f'"What is your name?" asked {hero.name}. "I am {friend.name}."')
    t.say(f"Then {hero.name} showed {friend.him} {hero.his} {t.look} {t.thing}.",
          f"{hero.name} took out {article(t.look + ' ' + t.thing)} and gave it to {friend.him}.",
          f"{friend.name} had {article(t.look + ' ' + t.thing)}, and {hero.name} asked about it.")
    t.say(f"They played with the {t.thing} until the sun went down.", f"Soon they were both laughing.",
          f"They talked about the {t.thing} for a long time.")
    t.maybe(0.5, f'"Will you come again tomorrow?" asked {friend.name}. "Of course," said {hero.name}.',
            f"They shared {t.pick(*words.TREATS)}.", f"After that they were never lonely again.")


def fear(t, when, brief):
    hero = t.hero
    thing = t.rng.choice(list(words.FEARS))
    t.facts["fear"] = thing
    t.say(f"But {hero.name} was afraid of {thing}.", f"There was only one problem: {hero.name} feared {thing}.")
    t.maybe(0.5, f"{hero.He} did not tell anybody.", f"When {hero.he} thought of it, {hero.his} knees shook.")
    known = t.friend_known
    t.meet_friend(when)
    friend = t.friend
    if known:
        t.say(f"{when} {hero.name} told {friend.name} about it.", f"{when} {friend.name} saw that {hero.name} was afraid.")
    else:
        t.say(f"{hero.name} told {friend.him} about it.", f'"You look worried," said {friend.name}.')
    if not brief:
        t.say(f'"I was afraid of {thing} too," said {friend.name}. "Then somebody held my hand."',
              f'"I will stay with you," said {friend.name}.', f'"Let us try it together," said {friend.name}.')
        t.maybe(0.5, f"{friend.name} gave {hero.him} {article(t.look + ' ' + t.thing)} for luck.",
                f"{hero.name} held {hero.his} {t.look} {t.thing} very tight.")
    t.say(f"Slowly, step by step, {hero.name} tried it.", f"{hero.name} took a deep breath and was brave.",
          f"{hero.name} closed {hero.his} eyes, counted to three and opened them again.")
    t.say(f"It was not so bad. {words.FEARS[thing]}.", f"And nothing bad happened. {words.FEARS[thing]}.")
    t.maybe(0.6, f'"I did it!" cried {hero.name}.', f'"You see?" said {friend.name}.',
            f"{hero.name} was not afraid any more.")


def quest(t, when, brief):
    hero, thing, far = t.hero, t.thing, t.far
    asker = t.third
    t.facts["asker"] = asker
    t.say(f"{when} {asker.name} {asker.the} asked {hero.name} for help.",
          f"{when} a message came from {asker.name} {asker.the}.")
    t.say(f'"Please bring me the {t.look} {thing} that lies {t.at(far)}," it said.'
          if "message" in t.paragraphs[-1][-1] else
          f'"Please bring me the {t.look} {thing} that lies {t.at(far)}," said {asker.name}.')
    t.facts["found"] = t.at(far)
    t.maybe(0.7, f"{hero.name} packed {t.pick(*words.TREATS)} and set out.", f"{hero.name} set out at once.",
            f'"I will do it," said {hero.name}.')
    if not brief:
        t.say("The way was long and steep.", f"{hero.He} walked for two days.",
              f"{hero.He} passed many houses and many trees.")
    known = t.friend_known
    if not known:
        t.meet_friend(t.pick("On the way", "Half way there"))
    friend = t.friend
    t.say(f"{friend.name} knew the way and came along.", f'"I will go with you," said {friend.name}.',
          f"{friend.name} wanted to see the world and came along.")
    if not brief:
        t.say("Then they came to a wide river without a bridge. They built a raft and crossed it.",
              "Then a big rock blocked the way. They pushed it aside together.",
              f"Then they were lost in the fog. {friend.name} sang loudly, so that they did not lose each other.",
              f"Then night fell. {hero.name} made a small fire, and they slept beside it.")
    t.say(f"At last they stood {t.at(far)}, and there was the {thing}.",
          f"{capital(t.at(far))} they found the {t.look} {thing}.")
    t.say(f"They brought it back to {asker.name}, who was very glad.",
          f"When they came back, {asker.name} thanked them and gave them {t.pick(*words.TREATS)}.",
          f'"You are heroes," said {asker.name} when they came back.')


def share(t, when, brief):
    hero = t.hero
    treat = t.rng.choice(words.TREATS)
    t.facts["treat"] = treat
    t.say(f"{when} {hero.name} had {treat}.", f"{when} {hero.name} made {treat}.")
    t.maybe(0.5, "It smelled wonderful.", f"{hero.He} had waited for it all week.")
    known = t.friend_known
    t.meet_friend("Just then")
    friend = t.friend
    if known:
        t.say(f"Just then {friend.name} came by. {friend.He} was hungry.")
    else:
        t.say(f"{friend.name} looked tired and hungry.", f'"I have not eaten since yesterday," said {friend.name}.')
    if not brief:
        t.maybe(0.6, f"{hero.name} thought about it. There was not very much.", f"{hero.name} did not think long.")
    t.say(f'"Come and eat with me," said {hero.name}.', f"{hero.name} gave {friend.him} half of it.",
          f"{hero.name} set a second plate on the table.")
    t.say("They ate together, and it tasted twice as good.", f"{friend.name} ate and smiled.")
    if not brief:
        t.say(f"Some time later {hero.name} was in trouble: {hero.his} {t.thing} was broken. {friend.name} came and "
              f"mended it.", f"The next day there was {article(t.look + ' ' + t.thing)} at the door of {hero.name}. It "
              f"was a present from {friend.name}.", f"To say thank you, {friend.name} gave {hero.him} "
              f"{article(t.look + ' ' + t.thing)}.")


def build(t, when, brief):
    hero = t.hero
    project = t.rng.choice(list(words.PROJECTS))
    part = words.PROJECTS[project]
    noun = project.split(" ", 1)[1]
    t.facts["project"] = project
    t.say(f"{when} {hero.name} wanted to build {project}.", f"{when} {hero.name} began to build {project}.")
    t.say(f"{hero.He} worked very fast, and {part} fell down.", f"{hero.He} worked all day, but in the night {part} broke.",
          f"It looked good, but when the wind came, {part} broke.")
    t.maybe(0.6, f'"I will never finish it," said {hero.name}.', f"{hero.name} was angry and kicked a stone.",
            f"{hero.name} sat down and sighed.")
    known = t.friend_known
    t.meet_friend("Then")
    friend = t.friend
    if known:
        t.say(f"Then {friend.name} came to see the work.")
    t.say(f'"We can do it together," said {friend.name}.', f'"You need more time and one more pair of hands," said {friend.the}.',
          f'"Let me hold it while you work," said {friend.name}.')
    if not brief:
        t.say(f"This time they made a plan first.", f"{friend.name} brought tools and {article(t.look + ' ' + t.thing)}.",
              f"They worked slowly and carefully.")
        t.maybe(0.6, f"{hero.name} held {part} and {friend.name} made it strong.", f"They sang while they worked.")
    t.say(f"In the end {part} was strong, and {t.pick('everybody', t.third.name + ' ' + t.third.the)} came to look at it.",
          f"At last it was finished. What {article(t.pick('fine', 'strong', 'beautiful') + ' ' + noun.split(' over')[0])}!",
          f"After three days it was ready, and it was perfect.")


def contest(t, when, brief):
    hero = t.hero
    event = t.rng.choice(list(words.CONTESTS))
    did = words.CONTESTS[event]
    t.facts["event"] = event
    t.facts["prize"] = f"{t.look} {t.thing}"
    t.say(f"{when} there was {event} {t.at(t.far)}.", f"{when} {hero.name} heard about {event} {t.at(t.far)}.")
    t.say(f"The prize was {article(t.look + ' ' + t.thing)}.", f"The winner would get {article(t.look + ' ' + t.thing)}.")
    t.maybe(0.6, f"{hero.name} wanted to win very much.", f"{hero.name} practised every day.",
            f'"I am not good enough," thought {hero.name}, but {hero.he} went there.')
    known = t.friend_known
    t.meet_friend("There")
    friend = t.friend
    if known:
        t.say(f"{friend.name} took part too.")
    else:
        t.say(f"{friend.He} wanted to win too.", f'"I always win," said {friend.name}.')
    t.say(f"They both {did} as well as they could.", f"{hero.name} {did} better than ever before.")
    t.facts["winner"] = t.hero
    if t.chance(0.5):
        if not brief:
            t.say(f"Then {friend.name} fell and hurt {friend.his} {t.pick('foot', 'knee', 'nose')}. {hero.name} stopped and helped {friend.him} up.")
        t.say(f"In the end {friend.name} won, but {friend.he} gave the prize to {hero.name}.",
              f"{friend.name} won and shared the prize with {hero.name}.")
        t.facts["winner"] = friend
    else:
        t.say(f"In the end {hero.name} won the {t.thing}.", f"{hero.name} won, and everybody clapped.")
        t.maybe(0.6, f'"Well done," said {friend.name}.', f"{friend.name} was the first to shake {hero.his} hand.")


def rescue(t, when, brief):
    hero = t.hero
    known = t.friend_known
    trouble = t.pick("was stuck in the mud", "had fallen into a deep hole", "sat high up in a tree and could not come down",
                     "was caught in a net", "had lost the way home in the snow")
    t.facts["trouble"] = trouble
    t.say(f"{when} a big storm came.", f"{when} the wind was so strong that the trees bent.",
          f"{when} {hero.name} heard somebody calling.")
    t.maybe(0.5, '"Help! Help!" cried a voice.', f"{hero.name} heard a cry from far away.")
    friend = t.friend
    if known:
        t.say(f"It was {friend.name}, who {trouble}.")
    else:
        t.friend_known = True
        t.facts["friend"] = friend
        t.say(f"It was {friend.name}, {article(t.pick('young', 'little', 'poor') + ' ' + friend.kind)}, who {trouble}.",
              f"{capital(article(friend.kind))} named {friend.name} {trouble}.")
    if not brief:
        t.maybe(0.7, f"{hero.name} was afraid, but {hero.he} ran out into the wind.", f'"I am coming!" called {hero.name}.',
                f"There was no time to lose.")
    t.say(f"{hero.name} took {hero.his} {t.look} {t.thing} and ran to help.",
          f"With {article(t.look + ' ' + t.thing)} in one hand, {hero.name} came closer and closer.")
    t.say(f"{hero.He} pulled with all {hero.his} strength until {friend.name} was free."
          if "stuck" in trouble or "net" in trouble or "hole" in trouble else
          f"{hero.He} showed {friend.him} the way, one step after the other, until {friend.he} was safe.")
    t.maybe(0.7, f'"You saved me," said {friend.name}.', f"{friend.name} was cold, so {hero.name} gave {friend.him} {t.pick(*words.TREATS)}.",
            f'"How can I ever thank you?" said {friend.the}.')


def noise(t, when, brief):
    hero = t.hero
    sound = t.rng.choice(list(words.NOISES))
    t.facts["sound"] = sound
    t.facts["cause"] = words.NOISES[sound]
    t.say(f"{when} {hero.name} heard {sound}.", f"{when} there was {sound} {t.at(t.home)}.",
          f"{when} {hero.name} woke up because of {sound}.")
    t.say(f'"What is that?" whispered {hero.name}.', f"{hero.name} hid under the blanket.", f"{hero.name} held {hero.his} breath.")
    known = t.friend_known
    if not brief or not known:
        if known:
            t.say(f"{hero.He} ran to {t.friend.name}.")
        else:
            t.meet_friend("Outside")
        friend = t.friend
        t.say(f"{friend.name} had heard it too.", f'"Perhaps it is a monster," said {friend.name}.',
              f'"Let us go and see," said {friend.name}.')
    t.say(f"They took {article(t.look + ' ' + t.thing)} and followed the sound.",
          f"They walked on the tips of their toes, closer and closer.")
    t.say(f"It was only {words.NOISES[sound]}.", f"And what did they find? It was {words.NOISES[sound]}.")
    t.maybe(0.7, "They laughed until their bellies hurt.", f'"And I was so afraid!" said {hero.name}.',
            f"They went home and drank hot milk.")


def party(t, when, brief):
    hero, friend = t.hero, t.friend
    t.meet_friend(t.pick("Some time ago", "Last summer"))
    t.say(f"{when} it was the birthday of {hero.name}, but nobody said a word about it.",
          f"{when} {hero.name} had a birthday, and it seemed that all had forgotten it.")
    t.maybe(0.7, f"Even {friend.name} walked past without a greeting.", f"{hero.name} sat alone and felt sad.")
    if not brief:
        t.say(f"{hero.He} went for a long walk {t.at(t.far)}.", f"{hero.He} waited all day.",
              f'"Perhaps they do not like me any more," thought {hero.name}.')
    t.say(f"But when {hero.he} came home, the whole house was full of light.",
          f"In the evening {hero.he} opened the door, and there they all were.")
    t.say(f'"Surprise!" cried {friend.name} and {t.third.name} {t.third.the}.', f'"Happy birthday!" they all cried.')
    t.say(f"They ate {t.pick(*words.TREATS)}, and {friend.name} gave {hero.him} {article(t.look + ' ' + t.thing)}.",
          f"The present from {friend.name} was {article(t.look + ' ' + t.thing)}.")
    t.maybe(0.6, "They danced until late in the night.", f'"You did not forget me," said {hero.name}.')


PLOTS = {
    "lost": lost, "found": found, "friend": friend, "fear": fear, "quest": quest, "share": share, "build": build,
    "contest": contest, "rescue": rescue, "noise": noise, "party": party,
}
