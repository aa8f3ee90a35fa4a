"""The words the generators draw from. Every word is one run of letters, written without a space.

A generator keeps only the words that are one token (with their leading space) for the tokenizer
at hand, so the pools may be generous.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: first names by the pronoun the demo corpus uses for them
SHE_NAMES = _words(
    "Alice Clara Diana Emma Fiona Grace Hannah Irene Julia Karen Laura Maria Nina Olivia Paula "
    "Rachel Sarah Tessa Ursula Vera Wendy Zoe Amelia Bella Carol Eve"
)
HE_NAMES = _words(
    "Adam Brian Carl Daniel Eric Frank George Henry Ivan Jack Kevin Leo Mark Nathan Oscar Peter "
    "Robert Simon Thomas Victor Walter Alan Bruce David Felix Hugo"
)
#: all first names, the two lists interleaved so that a prefix is balanced
NAMES = tuple(name for pair in zip(SHE_NAMES, HE_NAMES, strict=True) for name in pair)

PLACES = _words(
    "market harbor library station garden museum theater bakery forest office castle river "
    "stadium hotel temple village"
)

OBJECTS = _words(
    "lantern basket letter guitar hammer ticket blanket compass bottle candle notebook ladder "
    "camera ribbon mirror pencil"
)

#: words of descriptions, and of the induction task
NOUNS = _words(
    "anchor apple arrow barrel beach bridge button canvas carpet cellar circle cloud copper corner "
    "cotton crystal desert dragon engine fabric feather finger flame galaxy ginger glacier island "
    "jacket kettle lemon marble meadow needle ocean orange pillow planet pocket rabbit rocket "
    "saddle shadow silver spider square statue sugar summer thread thunder timber tunnel valley "
    "velvet violin wagon walnut window winter wizard"
)

#: names of function arguments
ARGUMENTS = _words(
    "size path name index value count label offset limit mode color depth width height weight "
    "speed angle scale shape style source target parent child prefix suffix filter format buffer "
    "cache client config context cursor data device driver event field flag frame group handle "
    "header image item key level line method model node option order owner page point port query "
    "range rate result"
)

#: names of functions
FUNCTIONS = _words(
    "load save update create remove insert search render parse build convert compute resize merge "
    "split fetch"
)

DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words(
    "January February March April May June July August September October November December"
)
NUMBERS = _words(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen"
)

#: things that last from one year to another
EVENTS = _words("siege war strike voyage famine treaty reign drought feud truce plague festival")

TRAITS = _words(
    "clever patient gentle famous curious honest careful cheerful brave quiet polite busy"
)
ROLES = _words("teacher doctor painter singer farmer sailor writer baker lawyer pilot judge dancer")
