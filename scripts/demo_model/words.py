"""The closed vocabulary of the story grammar: who, what, where, and one-line facts about each.

Every list is plain data.  `stories.py` combines them into plots, `chats.py` into conversations.
"""

# Kinds of characters: kind -> what a child would be told about it.
ANIMALS = {
    "dragon": "a big creature from old tales that can fly and breathe fire",
    "fox": "a clever animal with red fur and a long, soft tail",
    "rabbit": "a small animal with long ears that likes carrots and fast runs",
    "bear": "a large animal with thick fur that sleeps through the winter",
    "mouse": "a tiny animal with round ears and a thin tail",
    "owl": "a bird that sleeps by day and flies by night",
    "cat": "a quiet animal with whiskers that likes warm places",
    "dog": "a loyal animal that wags its tail when it is happy",
    "turtle": "a slow animal that carries its house on its back",
    "frog": "a green animal that jumps and sings near the water",
    "hedgehog": "a little animal covered with spines",
    "unicorn": "a magic horse with one long horn",
    "elephant": "a very big grey animal with a long trunk",
    "lion": "a strong golden cat with a loud roar",
    "penguin": "a bird that cannot fly but swims very well",
    "squirrel": "a quick animal that hides nuts for the winter",
    "duck": "a bird that swims on ponds and says quack",
    "monkey": "a playful animal that climbs trees",
    "wolf": "a grey animal that lives with its family in the forest",
    "horse": "a tall animal that loves to run over the fields",
    "goat": "an animal with horns that climbs on rocks",
    "crow": "a clever black bird",
    "beaver": "an animal that builds houses of wood in the river",
    "badger": "an animal with a striped face that digs deep homes",
    "deer": "a gentle animal with thin legs and big eyes",
    "kitten": "a very young cat",
    "puppy": "a very young dog",
    "pig": "a round pink animal that likes mud",
    "cow": "a large animal that eats grass and gives milk",
    "sheep": "an animal covered with warm wool",
    "tiger": "a big cat with orange fur and black stripes",
    "giraffe": "an animal with a very long neck",
    "zebra": "an animal like a horse with black and white stripes",
    "panda": "a black and white bear that eats bamboo",
    "snail": "a small, slow animal with a round shell",
    "bee": "a small insect that makes honey",
    "parrot": "a bright bird that can learn to speak",
    "otter": "an animal that swims in rivers and loves to play",
    "swan": "a large white bird with a long neck",
    "donkey": "an animal with long ears that carries heavy bags",
}
PEOPLE = {
    "girl": "a young person who will grow up to be a woman",
    "boy": "a young person who will grow up to be a man",
    "robot": "a machine that can move and do work",
    "wizard": "a person in a tall hat who knows magic",
    "king": "a man who rules a country",
    "queen": "a woman who rules a country",
    "knight": "a brave fighter who rides a horse",
    "pirate": "a person who sails the sea and looks for treasure",
    "princess": "the daughter of a king or a queen",
    "prince": "the son of a king or a queen",
    "farmer": "a person who grows food on the land",
    "baker": "a person who makes bread and cakes",
    "giant": "a person as tall as a tree",
    "fairy": "a tiny person with wings and a little magic",
    "witch": "a woman who knows spells and brews potions",
    "sailor": "a person who works on a ship",
    "gardener": "a person who takes care of plants",
    "tailor": "a person who sews clothes",
    "ghost": "a pale spirit that floats and says boo",
    "painter": "a person who makes pictures with colours",
    "fisherman": "a person who catches fish",
    "teacher": "a person who helps others to learn",
    "doctor": "a person who helps sick people",
    "shepherd": "a person who watches over sheep",
    "clown": "a person who makes others laugh",
    "inventor": "a person who makes new machines",
    "musician": "a person who plays music",
    "astronaut": "a person who flies to the stars",
}
KINDS = {**ANIMALS, **PEOPLE}
HE_ONLY = {"boy", "king", "prince", "wizard", "fisherman"}
SHE_ONLY = {"girl", "queen", "princess", "witch", "fairy"}

HE_NAMES = ("Tom Max Leo Ben Sam Finn Oscar Milo Hugo Jack Felix Theo Otto Noah Peter Bruno Emil Arlo Jasper Rufus "
            "Oliver Henry Pip Barnaby Edgar Simon Walter Casper").split()
SHE_NAMES = ("Lily Mia Anna Rose Clara Ella Nora Ruby Zoe Ida Lucy Maya Alice Emma Greta Flora Hazel Ivy Luna Daisy "
             "Sophie Martha Wanda Poppy Tilda Olive Penny Bella").split()

# Objects a character can carry: object -> fact.
OBJECTS = {
    "key": "a small thing of metal that opens a lock",
    "lantern": "a light that you can carry in the dark",
    "ball": "a round toy that you can throw and catch",
    "map": "a drawing that shows where places are",
    "kite": "a toy that flies in the wind on a long string",
    "hat": "a thing that you wear on your head",
    "bell": "a thing of metal that rings when you shake it",
    "book": "many pages with words and pictures",
    "coin": "a small round piece of money",
    "ring": "a small circle that you wear on a finger",
    "drum": "a round thing that you beat to make music",
    "flute": "a thin pipe that makes music when you blow into it",
    "umbrella": "a thing that keeps you dry in the rain",
    "basket": "a thing made of twigs to carry food or flowers",
    "crown": "a golden ring that a king or a queen wears on the head",
    "clock": "a thing that shows the time",
    "box": "a thing with a lid where you keep other things",
    "blanket": "a warm cloth for cold nights",
    "cup": "a small thing to drink from",
    "spoon": "a thing to eat soup with",
    "scarf": "a long warm cloth for your neck",
    "button": "a small round thing that closes a coat",
    "feather": "a light thing that grows on a bird",
    "shell": "the hard house of a small sea animal",
    "stone": "a hard thing that you find on the ground",
    "letter": "a paper with words that you send to somebody",
    "mirror": "a glass in which you can see your own face",
    "candle": "a stick of wax that gives light when it burns",
    "sword": "a long blade that knights carry",
    "music box": "a little box that plays a song when you open it",
    "telescope": "a long tube that makes far things look near",
    "rope": "a long, thick string that is very strong",
    "bottle": "a thing of glass that holds water",
    "violin": "a thing of wood with four strings that makes music",
    "wand": "a thin stick that holds magic",
    "pearl": "a round white jewel from the sea",
    "compass": "a thing whose needle always points to the north",
    "teapot": "a pot in which you make tea",
    "boot": "a strong, high shoe",
    "whistle": "a small thing that makes a high sound when you blow",
}
OBJECT_LOOKS = "golden silver little old shiny red blue green wooden yellow strange beautiful tiny heavy".split()

# Places: noun -> (preposition phrase for being there, fact).
PLACES = {
    "forest": ("in the forest", "a place where many trees grow"),
    "castle": ("in the castle", "a big house of stone where kings live"),
    "village": ("in the village", "a small group of houses"),
    "river": ("by the river", "water that runs from the hills to the sea"),
    "mountain": ("on the mountain", "a very high hill of rock"),
    "beach": ("on the beach", "a place of sand beside the sea"),
    "garden": ("in the garden", "a place where flowers and vegetables grow"),
    "cave": ("in the cave", "a dark hole in the rock"),
    "farm": ("on the farm", "a place where animals live and food grows"),
    "market": ("at the market", "a place where people buy and sell things"),
    "island": ("on the island", "a piece of land with water all around"),
    "tower": ("in the tower", "a tall and narrow building"),
    "meadow": ("in the meadow", "a wide field of grass and flowers"),
    "lake": ("by the lake", "a large, quiet water with land all around"),
    "harbour": ("at the harbour", "a place where ships rest"),
    "library": ("in the library", "a house full of books"),
    "mill": ("at the mill", "a house where grain is made into flour"),
    "bridge": ("on the bridge", "a way over the water"),
    "hill": ("on the hill", "a piece of land that is higher than the rest"),
    "pond": ("by the pond", "a small, still water"),
    "valley": ("in the valley", "the low land between two hills"),
    "desert": ("in the desert", "a hot, dry place with much sand"),
    "school": ("at the school", "a place where children learn"),
    "town": ("in the town", "a place with many streets and houses"),
}
HIDING_SPOTS = [
    "under an old bench", "behind a big stone", "between the roots of a tree", "under a pile of leaves",
    "inside a hollow log", "next to a bush with red berries", "behind the wooden door", "at the edge of the water",
    "in the tall grass", "under a broken cart", "on top of a wall", "beside the path",
]
TREATS = [
    "a warm apple pie", "a pot of honey", "a bowl of soup", "a loaf of fresh bread", "some sweet berries",
    "a plate of pancakes", "a big cheese", "a basket of plums", "a carrot cake", "some roasted nuts",
]
TRAITS = "brave kind curious clever shy cheerful gentle quiet patient friendly stubborn lazy proud young old".split()
SIZES = "little small big tall tiny".split()
WEATHER = [
    "The sun was shining.", "It was raining a little.", "A cold wind blew over the land.", "Snow covered the ground.",
    "The sky was blue and clear.", "Fog lay over the fields.", "The air smelled of flowers.", "Birds were singing.",
    "The leaves were turning red.", "Clouds hung low in the sky.",
]
TIMES = [
    "One morning", "One day", "One evening", "One sunny day", "One windy day", "One cold morning", "One quiet afternoon",
    "Early one morning", "On the first day of spring", "On a rainy day", "One summer day", "One winter evening",
]
PLAIN_TIMES = TIMES[:3] + ["One quiet afternoon"]
FEARS = {
    "the dark": "It was only a place where the light was resting",
    "thunder": "It was only the sky clearing its throat",
    "deep water": "It carried everyone who was calm",
    "high places": "From up there the whole world looked small and pretty",
    "strangers": "Most of them were friends who had not met yet",
    "the old house": "It was only dusty and lonely",
    "speaking aloud": "Everybody listened and smiled",
}
PROJECTS = {
    "a tree house": "the roof", "a small boat": "the mast", "a bridge over the stream": "the middle",
    "a snowman": "the head", "a sand castle": "the tower", "a windmill": "the wheel", "a sledge": "the seat",
    "a bird house": "the door", "a stone wall": "the corner", "a flying machine": "the left wing",
}
CONTESTS = {
    "a running race": "ran", "a swimming race": "swam", "a baking contest": "baked", "a singing contest": "sang",
    "a dancing contest": "danced", "a painting contest": "painted", "a kite contest": "flew a kite",
}
NOISES = {
    "a soft tapping": "a branch that the wind moved against the window",
    "a deep growl": "somebody snoring very loudly",
    "a strange song": "the wind blowing through an empty bottle",
    "a low knocking": "a loose door that swung in the wind",
    "a quiet crying": "a lost lamb that wanted its mother",
    "a sharp squeak": "an old wheel that needed oil",
}
LESSONS = {
    "lost": ["a friend is worth more than any treasure", "it is good to ask for help", "careful eyes find what quick feet miss"],
    "found": ["an honest heart is the best treasure", "what belongs to another should go back to the other",
              "a good deed comes back to you"],
    "friend": ["a friend can be found in any place", "a kind word opens every door", "nobody has to be alone"],
    "fear": ["being brave means being afraid and going on", "fear grows small when you look at it",
             "with a friend every dark way is shorter"],
    "quest": ["a long road is made of small steps", "the best part of a journey is coming home",
              "a clever idea is stronger than a strong arm"],
    "share": ["what you share becomes more", "a small gift can be a big help", "kindness never gets lost"],
    "build": ["good things take time", "four hands are better than two", "a mistake is a good teacher"],
    "contest": ["it is better to be fair than to be first", "winning is nice, but helping is nicer",
                "slow and steady is also a way to win"],
    "rescue": ["a true friend comes in the storm", "even the smallest one can be a hero", "help is always nearer than it seems"],
    "noise": ["many scary things are small when you look at them", "a light and a little courage chase fear away",
              "it is good to look before you run"],
    "party": ["the best gift is to be remembered", "a surprise is a joy for those who plan it too",
              "friends do not forget each other"],
}

# Words for requests that the grammar knows nothing about.
OPEN_NOUNS = (
    "computer law tax economy history science physics chemistry biology poem essay email blog travel city country "
    "president war number equation triangle function code program python array string list table sentence paragraph "
    "summary article review movie film actor song band team game sport player score price product customer market "
    "company business plan budget bank investment stock risk health diet exercise sleep vaccine virus patient doctor "
    "symptom medicine brain heart energy climate ocean planet star galaxy atom light speed mass force theory method "
    "experiment data model network language word verb grammar translation culture art music painting philosophy ethics "
    "religion society government election policy education school student teacher exam lesson job interview career "
    "manager meeting project deadline strategy marketing brand website user design image video camera phone internet "
    "server database algorithm graph tree matrix vector probability sample error test recipe dinner rice chicken "
    "vegetable coffee restaurant hotel flight train car engine traffic road building house apartment rent furniture "
    "garden flower weather season year month week day hour minute birthday family parent child friend marriage "
    "question answer problem solution reason cause effect example detail step idea opinion argument fact truth").split()
OPEN_ADJECTIVES = (
    "quantum modern ancient global local digital personal simple complex small large new old good bad best fast slow "
    "cheap expensive public private social political economic natural artificial human medical legal financial "
    "creative famous important common rare main first second last red green blue high low early late positive "
    "negative short long deep open free safe").split()
OPEN_VERBS = (
    "explain describe write summarize compare discuss analyze solve compute translate list create design implement "
    "improve rewrite review classify extract identify evaluate calculate find suggest recommend generate draft edit "
    "convert prove estimate outline plan teach imagine define").split()
