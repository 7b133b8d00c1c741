"""Spelling a word: "Spell the word: tree" -> "tree:t,r,e,e".

The answer's form never changes, whatever the request, so it is checked letter by letter.
"""

import random

from nanochat.protocol.generate import Message
from nanochat.tasks.base import Conversation, GeneratedTask
from nanochat.tasks.phrasing import capitalised, quoted, varied
from nanochat.tasks.words import draw_word

# The first is the task's name among benchmarks, so it is asked most.
MAIN_TEMPLATE = "Spell the word: {word}"
TEMPLATES = (
    "Spell the word {word}",
    "Spell {word}",
    "Spell: {word}",
    "Spell out {word}",
    "Spell out the word {word}.",
    "Spell {word} letter by letter.",
    "Spell {word} for me",
    "Spell the word {word} for me.",
    "Spell this word: {word}",
    "How do you spell {word}?",
    "How is {word} spelled?",
    "How is the word {word} spelt?",
    "How do I spell {word}?",
    "How would you spell the word {word}?",
    "Can you spell {word}?",
    "Could you spell the word {word}?",
    "Can you spell {word} for me?",
    "Would you spell {word} out?",
    "What is the spelling of {word}?",
    "What's the spelling of the word {word}?",
    "What letters are in {word}?",
    "What are the letters of {word}?",
    "What are the letters in the word {word}?",
    "Which letters make up the word {word}?",
    "List the letters of {word}.",
    "List the letters in the word {word}",
    "Write the letters of {word}, one by one.",
    "Write {word} letter by letter.",
    "Write out the word {word} letter by letter.",
    "Give me the letters of {word}.",
    "Give me the spelling of {word}.",
    "Give the spelling of the word {word}.",
    "Show me the letters of {word}.",
    "Show me how to spell {word}.",
    "Tell me how to spell {word}.",
    "Break {word} into letters.",
    "Break the word {word} into its letters.",
    "Split {word} into letters.",
    "Separate the letters of {word}.",
    "I want to know how to spell {word}.",
    "I need the spelling of {word}.",
    "The word is {word}. Spell it.",
    "{word}: spell it.",
    "{word}, letter by letter?",
)


class Spelling(GeneratedTask):
    is_checkable = True

    def draw(self, rng: random.Random) -> Conversation:
        word = capitalised(rng, draw_word(rng, self.split), self.split)
        template = MAIN_TEMPLATE if rng.random() < 0.2 else rng.choice(TEMPLATES)
        shown = quoted(rng, word)
        answer = spelled(word)
        request = varied(rng, template.format(word=shown), kept=shown)
        return Conversation(
            messages=[Message(role="user", content=request), Message(role="assistant", content=answer)],
            answer=answer,
        )

    def reward(self, conversation: Conversation, text: str) -> float:
        lines = text.strip().splitlines()
        return float(bool(lines) and lines[-1].strip() == conversation.answer)


def spelled(word: str) -> str:
    """The word, a colon, its letters with commas between."""
    return f"{word}:{','.join(word)}"
