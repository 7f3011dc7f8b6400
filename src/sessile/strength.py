"""How hard a secret is to guess, estimated from below.

Whoever has a cookie can try guesses at the secret as fast as a machine hashes. What people think up is made of words, of
sequences and of repetitions. So letters that follow each other as in words count as one word, a sequence counts as one
character, and a repetition as nothing. What a generator draws looks like none of these.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["BITS_MIN", "bits_of"]

BITS_MIN: Final = 50
"""Less may be guessed. What `sessile keygen` draws is estimated at 150 and more."""
LOOKED_AT_BYTES: Final = 128
"""What is behind these only adds to the estimate."""
SEQUENCE_MIN: Final = 4
_WORD_BITS: Final = 8.0
"""A word, out of the few hundred that people choose from."""
_LETTER_BITS: Final = 4.7
_DIGIT_BITS: Final = 3.3
_MARK_BITS: Final = 3.0
_BYTE_BITS: Final = 7.0
_PAIRS: Final = frozenset(
    [
        "th",
        "he",
        "in",
        "er",
        "an",
        "re",
        "nd",
        "at",
        "on",
        "nt",
        "ha",
        "es",
        "st",
        "en",
        "ed",
        "to",
        "it",
        "ou",
        "ea",
        "hi",
        "is",
        "or",
        "ti",
        "as",
        "te",
        "et",
        "ng",
        "of",
        "al",
        "de",
        "se",
        "le",
        "sa",
        "si",
        "ar",
        "ve",
        "ra",
        "ld",
        "ur",
        "me",
        "ne",
        "wa",
        "be",
        "fo",
        "ho",
        "no",
        "ro",
        "ri",
        "li",
        "co",
        "io",
        "ce",
        "ma",
        "ch",
        "ll",
        "wh",
        "we",
        "om",
        "us",
        "ul",
        "ly",
        "ee",
        "ss",
        "la",
        "ta",
        "ca",
        "el",
        "pe",
        "wo",
        "so",
        "sh",
        "ac",
        "ad",
        "ai",
        "am",
        "ap",
        "ay",
        "bl",
        "br",
        "bu",
        "ck",
        "ct",
        "da",
        "di",
        "do",
        "ec",
        "em",
        "ex",
        "ey",
        "fe",
        "fi",
        "ge",
        "gh",
        "go",
        "gr",
        "ht",
        "ic",
        "id",
        "ie",
        "ig",
        "il",
        "im",
        "ir",
        "iv",
        "ke",
        "lo",
        "mi",
        "mo",
        "mp",
        "na",
        "ni",
        "ns",
        "ol",
        "oo",
        "op",
        "os",
        "ot",
        "ow",
        "pa",
        "pl",
        "po",
        "pr",
        "qu",
        "rd",
        "rs",
        "rt",
        "ry",
        "sp",
        "su",
        "sw",
        "tr",
        "tt",
        "tu",
        "ty",
        "un",
        "up",
        "ut",
        "vi",
        "wi",
        "yo",
    ]
)
"""Letters that follow each other in words."""
PAIRS_SHARE_MIN: Final = 0.6
_ROWS: Final = "1234567890 qwertyuiop asdfghjkl zxcvbnm"
_REPEATED: Final = re.compile(r"(.+?)\1+", re.DOTALL)
_TOKENS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|.", re.DOTALL)


def bits_of(secret: bytes) -> float:
    """Bits that somebody who guesses has to find, at the least."""
    text = _without_sequences(secret[:LOOKED_AT_BYTES].decode("latin-1"))
    text = _REPEATED.sub(r"\1", text)
    bits, seen = 0.0, set()
    for token in _TOKENS.findall(text):
        is_known = token.lower() in seen
        seen.add(token.lower())
        if not (token.isascii() and token.isprintable()):
            bits += _BYTE_BITS
        elif token.isdigit():
            bits += _DIGIT_BITS
        elif not token.isalpha():
            bits += 0.0 if is_known else _MARK_BITS
        elif not _is_word(token.lower()):
            bits += _LETTER_BITS * len(token)
        elif not is_known:
            bits += _WORD_BITS
    return bits


def _is_word(letters: str) -> bool:
    """Whether these letters follow each other as in words."""
    pairs = [letters[at : at + 2] for at in range(len(letters) - 1)]
    return len(letters) > 2 and sum(pair in _PAIRS for pair in pairs) >= PAIRS_SHARE_MIN * len(pairs)


def _without_sequences(text: str) -> str:
    """The text with one character for each run that follows the alphabet, the keyboard or itself, up or down."""
    kept: list[str] = []
    at = 0
    while at < len(text):
        behind = max(_behind(list(map(ord, text)), at), _behind([_ROWS.find(each) for each in text.lower()], at))
        kept.append(text[at])
        at = behind if behind - at >= SEQUENCE_MIN else at + 1
    return "".join(kept)


def _behind(places: list[int], at: int) -> int:
    """The place behind the sequence that begins here."""
    behind = at + 1
    while (
        behind < len(places)
        and -1 <= places[behind] - places[behind - 1] <= 1
        and places[behind] - places[behind - 1] == places[at + 1] - places[at]
        and places[behind] >= 0
    ):
        behind += 1
    return behind
