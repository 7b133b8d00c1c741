"""SpellingBee: how often a letter is in a word, found twice: letter by letter, then with the calculator.

The long form, which a model of any size learns to reason in; counting.py is the short one, for the smallest. Asked in
English as there, and in other languages; always answered in English, with the count behind "#### ".
"""

import random

from nanochat.protocol.generate import Message, Part, PythonOutputPart, PythonPart, TextPart
from nanochat.tasks import counting
from nanochat.tasks.base import Conversation, GeneratedTask, Split, final_answer
from nanochat.tasks.phrasing import capitalised, quoted, varied
from nanochat.tasks.spelling import spelled
from nanochat.tasks.words import draw_word

_ENGLISH_RATIO = 0.6
OTHER_LANGUAGES = (
    # Spanish, Portuguese, Italian, French
    "¿Cuántas {letter} hay en {word}?",
    "¿Cuántas veces aparece la letra {letter} en {word}?",
    "Cuenta las {letter} de la palabra {word}.",
    "Quantas letras {letter} há em {word}?",
    "Quantas vezes a letra {letter} aparece na palavra {word}?",
    "Conte as letras {letter} em {word}.",
    "Quante {letter} ci sono in {word}?",
    "Quante volte compare la lettera {letter} nella parola {word}?",
    "Combien de {letter} y a-t-il dans {word} ?",
    "Combien de fois la lettre {letter} apparaît-elle dans le mot {word} ?",
    "Compte les {letter} dans {word}.",
    # German, Dutch, Swedish
    "Wie viele {letter} sind in {word}?",
    "Wie oft kommt der Buchstabe {letter} in {word} vor?",
    "Zähle die {letter} im Wort {word}.",
    "Hoeveel {letter}'s zitten er in {word}?",
    "Hoe vaak komt de letter {letter} voor in het woord {word}?",
    "Hur många {letter} finns det i {word}?",
    "Hur ofta förekommer bokstaven {letter} i ordet {word}?",
    # Polish, Russian, Turkish
    "Ile liter {letter} jest w słowie {word}?",
    "Ile razy litera {letter} występuje w {word}?",
    "Сколько букв {letter} в слове {word}?",
    "Сколько раз буква {letter} встречается в {word}?",
    "{word} kelimesinde kaç tane {letter} var?",
    # Chinese, Japanese, Korean, Hindi, Indonesian, Vietnamese
    "{word} 里有几个 {letter}?",
    "单词 {word} 中有多少个字母 {letter}?",
    "{word} に {letter} はいくつありますか?",
    "単語 {word} の中に文字 {letter} は何回出てきますか?",
    "{word}에 {letter}가 몇 개 있나요?",
    "단어 {word}에는 글자 {letter}가 몇 번 나오나요?",
    "{word} में {letter} कितनी बार आता है?",
    "Ada berapa huruf {letter} dalam kata {word}?",
    "Có bao nhiêu chữ {letter} trong từ {word}?",
)


class SpellingBee(GeneratedTask):
    is_checkable = True
    max_answer_tokens = 320

    def draw(self, rng: random.Random) -> Conversation:
        word = draw_word(rng, self.split, made_up_ratio=0.1)
        # Nine in ten ask for a letter that is there.
        letter = rng.choice(word) if rng.random() < 0.9 else rng.choice("abcdefghijklmnopqrstuvwxyz")
        answer = str(word.count(letter))
        return Conversation(
            messages=[
                Message(role="user", content=_request(rng, word, letter, self.split)),
                Message(role="assistant", content=worked_out(word, letter)),
            ],
            answer=answer,
        )

    def reward(self, conversation: Conversation, text: str) -> float:
        return float(final_answer(text) == conversation.answer)


def _request(rng: random.Random, word: str, letter: str, split: Split) -> str:
    shown = quoted(rng, capitalised(rng, word, split))
    shown_letter = quoted(rng, letter.upper() if rng.random() < 0.2 else letter)
    if rng.random() < _ENGLISH_RATIO:
        template = counting.MAIN_TEMPLATE if rng.random() < 0.2 else rng.choice(counting.TEMPLATES)
        return varied(rng, template.format(letter=shown_letter, word=shown), kept=shown)
    return rng.choice(OTHER_LANGUAGES).format(letter=shown_letter, word=shown)


def worked_out(word: str, letter: str) -> list[Part]:
    """Both in lower case. Spelled, counted one letter after the other, and counted once more by the calculator."""
    count, lines = 0, []
    for place, found in enumerate(word, start=1):
        count += found == letter
        lines.append(f"{place}. {found}" + (f" is a match, {count} so far" if found == letter else ""))
    by_hand = "\n".join(lines)
    return [
        TextPart(
            text=f"Let me count the letter {letter} in the word {word}.\n\nIts letters are {spelled(word)}\n\n"
            f"{by_hand}\n\nBy hand I find {count}. The calculator shall check that: "
        ),
        PythonPart(text=f"'{word}'.count('{letter}')"),
        PythonOutputPart(text=str(count)),
        TextPart(text=f"\n\nBoth agree.\n\n#### {count}"),
    ]
