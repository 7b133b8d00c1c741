"""Counting a letter in a word with the calculator: "How many r are in strawberry?" -> 'strawberry'.count('r') -> 3.

Case never matters: the expression holds word and letter in lower case. Letters that do not occur are asked for too.
"""

import random

from nanochat.protocol.generate import Message, Part, PythonOutputPart, PythonPart, TextPart
from nanochat.tasks.base import Conversation, GeneratedTask, last_number
from nanochat.tasks.phrasing import capitalised, quoted, varied
from nanochat.tasks.words import draw_word

MAIN_TEMPLATE = "How many {letter} are in {word}?"
TEMPLATES = (
    "How many {letter} are there in {word}?",
    "How many {letter} are in the word {word}?",
    "How many {letter} are there in the word {word}?",
    "How many {letter}'s are in {word}?",
    "How many {letter}'s are there in {word}?",
    "How many {letter}s are in {word}?",
    "How many {letter}s are there in the word {word}?",
    "How many {letter} in {word}?",
    "How many {letter}'s in {word}?",
    "How many {letter} does {word} have?",
    "How many {letter}'s does the word {word} have?",
    "How many {letter} does {word} contain?",
    "How many {letter} can you find in {word}?",
    "How many letters {letter} are in {word}?",
    "How many letters {letter} does the word {word} contain?",
    "How many letter {letter} are in {word}?",
    "How many of the letter {letter} are in {word}?",
    "How many times does {letter} appear in {word}?",
    "How many times does {letter} occur in {word}?",
    "How many times does the letter {letter} appear in {word}?",
    "How many times does the letter {letter} appear in the word {word}?",
    "How many times does the letter {letter} occur in {word}?",
    "How many times is {letter} in {word}?",
    "How many times is the letter {letter} used in {word}?",
    "How many times do you see {letter} in {word}?",
    "How often does {letter} appear in {word}?",
    "How often does the letter {letter} occur in the word {word}?",
    "How often is {letter} in {word}?",
    "Count the {letter} in {word}.",
    "Count the {letter}'s in {word}.",
    "Count {letter} in {word}",
    "Count the letter {letter} in {word}.",
    "Count the letters {letter} in the word {word}.",
    "Count how many {letter} are in {word}.",
    "Count how many times {letter} appears in {word}.",
    "Count how often the letter {letter} occurs in {word}.",
    "Count the number of {letter} in {word}.",
    "Count the occurrences of {letter} in {word}.",
    "Count all the {letter} in the word {word}.",
    "What is the number of {letter} in {word}?",
    "What is the number of {letter}'s in {word}?",
    "What's the count of {letter} in {word}?",
    "What is the count of the letter {letter} in {word}?",
    "Tell me how many {letter} are in {word}.",
    "Tell me how many times {letter} appears in {word}.",
    "Find the number of {letter} in {word}.",
    "Find how many {letter} there are in {word}.",
    "Give me the number of {letter} in {word}.",
    "Number of {letter} in {word}?",
    "Number of letter {letter} in {word}",
    "I want to know how many {letter} are in {word}.",
    "Can you count the {letter} in {word}?",
    "Can you count how many {letter}'s are in {word}?",
    "Could you tell me how many {letter} are in {word}?",
    "Do you know how many {letter} are in {word}?",
    "In {word}, how many {letter} are there?",
    "In the word {word}, how many {letter} are there?",
    "In the word {word}, how many times does {letter} appear?",
    "In {word}, how often does the letter {letter} occur?",
    "The word {word} has how many {letter}?",
    "{word} has how many {letter}?",
    "{word}: how many {letter}?",
)


class Counting(GeneratedTask):
    is_checkable = True

    def draw(self, rng: random.Random) -> Conversation:
        word = draw_word(rng, self.split)
        # Three in four ask for a letter that is there.
        letter = rng.choice(word) if rng.random() < 0.75 else rng.choice("abcdefghijklmnopqrstuvwxyz")
        template = MAIN_TEMPLATE if rng.random() < 0.2 else rng.choice(TEMPLATES)
        shown = quoted(rng, capitalised(rng, word, self.split))
        shown_letter = quoted(rng, letter.upper() if rng.random() < 0.3 else letter)
        request = varied(rng, template.format(letter=shown_letter, word=shown), kept=shown)
        count = str(word.count(letter))
        answer: list[Part] = [
            PythonPart(text=f"'{word}'.count('{letter}')"),
            PythonOutputPart(text=count),
            TextPart(text=f"The answer is {count}."),
        ]
        return Conversation(
            messages=[Message(role="user", content=request), Message(role="assistant", content=answer)],
            answer=count,
        )

    def reward(self, conversation: Conversation, text: str) -> float:
        return float(last_number(text) == conversation.answer)
