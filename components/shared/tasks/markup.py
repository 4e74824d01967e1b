r"""Taking off the LaTeX, Markdown and GSM8K annotations that stand around numbers.

>>> plain(r"She makes $9 \times 2 = \$\frac{36}{2}$ = $<<9*2=18>>18")
'She makes $9 x 2 = $36/2$ = $18'
"""

import re

# In this order: what stands inside something else goes first. Bold (`**`) stays: it says which number is the answer.
_REPLACEMENTS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"<<[^<>\n]*(?:>>|$)", ""),  # <<9*2=18>>, also where the token limit cut it off
        (r"(?<=\d)(?:\\,|\{,\}|,\\!)(?=\d)", ","),
        (r"\^ ?(?:\\circ|\{ ?\\circ ?\})", "°"),
        (r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[,!;: ()\[\]]", " "),
        (r"\\(?:text|textbf|mathrm|mathbf|mathit|operatorname) ?\{([^{}]*)\}", r"\1"),
        (r"\\([$%#&_])", r"\1"),
        (r"\\(?:times|cdot)(?![a-zA-Z])", "x"),
        (r"\\(?:approx|equiv)(?![a-zA-Z])|[≈≅]", "="),
        (r"\\sqrt ?(?:\{|(?=\d))", "√"),
        (r"\\pi(?![a-zA-Z])", "π"),
        (r"(?<=\d) ?(?=\\[dt]?frac)", " "),  # 2\frac{1}{2} is a mixed number
        (r"\\[dt]?frac ?\{([^{}]*)\} ?\{([^{}]*)\}", r"\1/\2"),
        (r"\\[dt]?frac ?(\d) ?(\d)", r"\1/\2"),
        (r"\^\{([^{}]*)\}", r"^\1"),
        (r"(?<!\w)_{1,2}(?=\S)|(?<=\S)_{1,2}(?!\w)", ""),
    )
]

_MAY_MATCH = re.compile(r"[\\<{^_≈≅]")
"""One of these is in all that `_REPLACEMENTS` match, and in few texts."""


def plain(text: str) -> str:
    """Text without markup that a reader would not see, but for `**` and the braces of `\\boxed{...}`."""
    if _MAY_MATCH.search(text) is None:
        return text
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text
