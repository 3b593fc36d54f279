"""Short (query, passage) pairs to run through a model when it is loaded in 8 bits.

They show which inputs of a layer are large; their scores are not read. Written for this purpose, in
several languages, kinds of text and lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

SAMPLE_PAIRS: Sequence[tuple[str, str]] = (
    (
        "how long do cooked beans keep in the refrigerator?",
        "Cooked beans keep for three to five days in a closed container in the refrigerator, and "
        "for about six months in the freezer. Let them cool before you put them away.",
    ),
    (
        "how long do cooked beans keep in the refrigerator?",
        "The committee met on 14 March 2019 and elected Maria Oyelaran as its chair by 11 votes "
        "to 4; the minutes were published in May.",
    ),
    (
        "Aspirin lowers the risk of colorectal cancer",
        "Background: Observational studies suggest that regular aspirin use is associated with a "
        "reduced incidence of colorectal adenomas (RR 0.72, 95% CI 0.61-0.85). Methods: We "
        "followed 1,121 patients for three years. Results: Low-dose aspirin (81 mg/day) reduced "
        "the risk of advanced neoplasia, whereas 325 mg/day had no significant effect (P = 0.04 "
        "and P = 0.38). Conclusions: Low doses may have a moderate chemopreventive effect.",
    ),
    (
        "what does the with statement do in Python?",
        "with open(path, encoding='utf-8') as file:\n    for line in file:\n        print(line)\n\n"
        "The context manager's __exit__() method is called when the block ends, even if an "
        "exception was raised in it.",
    ),
    (
        "who wrote the opera in which a toymaker's doll sings?",
        "The Tales of Hoffmann is an opera by Jacques Offenbach; its libretto is by Jules Barbier.",
    ),
    (
        "Wann wurde die Brücke über den Fluss gebaut?",
        "Die steinerne Brücke wurde zwischen 1135 und 1146 errichtet und verband die Altstadt mit "
        "dem Ufer gegenüber; über Jahrhunderte war sie der einzige Übergang weit und breit.",
    ),
    (
        "长城有多长？",
        "根据测量，明代长城的总长度约为八千八百五十一公里，其中人工墙体约六千二百公里。",
    ),
    (
        "¿Qué países atraviesa el río más largo de la región?",
        "El río nace en las montañas del sur, atraviesa cuatro países y desemboca en un delta.",
    ),
    ("returns policy", "RETURNS: 30 days, unopened, with receipt. No refund on sale items (*)."),
    ("ما هي عاصمة البلاد؟", "العاصمة هي أكبر مدينة في البلاد، وتقع على ضفاف النهر."),
)
