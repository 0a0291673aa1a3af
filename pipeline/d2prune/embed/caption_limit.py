"""The part of a caption that models and the language filter read: its first `MAX_CHARACTERS`.

A model reads 77 tokens, a few hundred characters. The tokenizer cleans the whole caption before it
cuts tokens, and parts of that take quadratic time: `&amp;amp;amp;...` is unescaped one level per pass,
and runs of combining characters are sorted by insertion. So longer captions are cut before they are
cleaned. The stored caption is never cut.
"""

import re

MAX_CHARACTERS = 8192
"""More than any text of 77 tokens: the longest token of CLIP's vocabulary has 32 bytes, so 77 of them
and the white space between them fill less than a third of it."""

CAPTION_CUT = "caption-cut"
"""Counter: captions of which models read the first `MAX_CHARACTERS` characters only."""

_RUN_ENDS = 4
_LONG_RUN = re.compile(rf"\s{{{4 * _RUN_ENDS},}}")
# ftfy treats each line, or piece of a line of this length, on its own.
_FTFY_PIECE = 1_000_000


def cut_caption(caption: str, limit: int = MAX_CHARACTERS) -> str:
    """Return the part of a caption that is read; a caption of up to `limit` characters is returned whole.

    Runs of white space are shortened first, so that a caption is not cut within one. Cleaning then
    gives the same text as for the whole caption, up to the cut, except where ftfy decides about a
    line as a whole: whether a line that is longer than the limit was decoded with a wrong encoding.
    """
    if len(caption) <= limit:
        return caption
    kept, position = "", 0
    while len(kept) < limit and position < len(caption):
        stop = position + limit - len(kept)
        found = _LONG_RUN.search(caption, position, stop)
        run = found and _LONG_RUN.match(caption, found.start())
        if run:
            kept += caption[position : run.start()] + _shorten_run(run)
            position = run.end()
        else:
            kept += caption[position:stop]
            position = stop
    line_start, line_end = kept.rfind("\n") + 1, caption.find("\n", position)
    line_end = min(line_end if line_end >= 0 else len(caption), position + _FTFY_PIECE)
    if "<" not in kept[line_start:] and caption.find("<", position, line_end) >= 0:
        # ftfy takes a line with "<" for markup and does not unescape it.
        kept += " <"
    return kept


def _shorten_run(run: re.Match[str]) -> str:
    """Keep the ends of a run and every kind of white space in it, on which ftfy's decisions depend."""
    text = run.group()
    return text[:_RUN_ENDS] + "".join(dict.fromkeys(text)) + text[-_RUN_ENDS:]
