r"""LaTeX in JSON: `\frac` is a legal escape, a form feed and `rac`, where a model forgot to double the backslash."""

import re

_ESCAPE = re.compile(r"""\\(?:([\\"/])|(u[0-9a-fA-F]{4})|([A-Za-z]+)|(.|\n|$))""")
_TAB_WORDS = """
tag tan tanh tau tbinom tensor text textbf textcirc textcolor textit textmd textnormal textrm textsc textsf
textsl texttt textup tfrac therefore theta thickapprox thicksim thinspace tilde times tiny to top trace
transpose triangle triangledown triangleleft trianglelefteq triangleq triangleright trianglerighteq
twoheadleftarrow twoheadrightarrow
"""
_TAB_COMMANDS = frozenset(_TAB_WORDS.split())
_RETURN_WORDS = """
rVert raisebox rangle rarr rbrace rbrack rceil renewcommand rfloor rgroup rho rhook right rightarrow
rightharpoondown rightharpoonup rightleftarrows rightleftharpoons rightrightarrows rightsquigarrow rm root
rule rvert
"""
_RETURN_COMMANDS = frozenset(_RETURN_WORDS.split())
_NEWLINE_WORDS = """
nLeftarrow nRightarrow nabla natural ncong nearrow neq newcommand newline nexists ngeq ngeqslant ngtr
nleftarrow nleq nleqslant nless nmid nolimits nonumber norm normalsize not notin nparallel nprec nrightarrow
nsim nsubseteq nsucc nsupseteq ntriangleleft ntriangleright nwarrow
"""
_NEWLINE_COMMANDS = frozenset(_NEWLINE_WORDS.split())
_NEWLINE_OR_MATHS = frozenset(("ne", "neg", "ni", "nu"))
"""A line break and a short word, unless they stand in a formula."""


def double_backslashes(source: str) -> str:
    r"""JSON with the single backslashes doubled that a model meant as such: `\frac{1}{2}`, `\(x\)`, `\alpha`.

    A backspace and a form feed are never meant. A tab, a line break or a carriage return is when the word behind it
    makes no command of LaTeX.
    """
    return _ESCAPE.sub(_doubled, source)


def _doubled(escape: re.Match[str]) -> str:
    plain, code, word, other = escape.groups()
    if plain or code:
        return escape[0]
    if word:
        kind = word[0]
        if kind in "bf":
            meant = len(word) == 1
        elif kind == "n":
            meant = not (word in _NEWLINE_COMMANDS or (word in _NEWLINE_OR_MATHS and _in_formula(escape)))
        elif kind in "rt":
            meant = word not in (_TAB_COMMANDS if kind == "t" else _RETURN_COMMANDS)
        else:
            meant = False
        return escape[0] if meant else f"\\{escape[0]}"
    return other if other == "'" else f"\\{escape[0]}"


def _in_formula(escape: re.Match[str]) -> bool:
    before = escape.string[max(0, escape.start() - 400) : escape.start()].rpartition('"')[2]
    return before.count("$") % 2 == 1 or before.rfind("\\(") > before.rfind("\\)")
