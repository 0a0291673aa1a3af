"""Text of the project that a user can read, and the phrases it must not contain.

`RULES` is the glossary: a pattern, what to write instead, and the context in which the phrase is fine.
`passages` extracts readable text from a file: comments, docstrings and strings of code; the text and labels
of HTML; all of Markdown except identifiers in backquotes. Strings that are identifiers (one lower-case word,
a path, a key) are skipped.
"""

import io
import re
import tokenize
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FOLDERS = ("docs", "pipeline", "jobs", "benchmarks", "tools", "deploy")
_SUFFIXES = {".md", ".py", ".html", ".js", ".css", ".yaml", ".json", ".Dockerfile"}
_CONTEXT = 30


@dataclass(frozen=True)
class Rule:
    """One entry of the glossary.

    Attributes:
        phrase: regular expression; a space matches any white space; case is ignored.
        instead: suggestion.
        unless: regular expression; the phrase is fine where this matches it with 30 characters of context.
    """

    phrase: str
    instead: str
    unless: str = ""

    def find(self, text: str) -> Iterator[re.Match[str]]:
        """Yield every match that the context does not allow."""
        for found in re.finditer(self.phrase.replace(" ", r"\s+"), text, re.IGNORECASE):
            start, end = found.span()
            around = " ".join(text[max(start - _CONTEXT, 0) : end + _CONTEXT].split())
            if not (self.unless and re.search(self.unless, around, re.IGNORECASE)):
                yield found


RULES = (
    # Words with one translation each.
    Rule(r"\bpictures?\b", "image", r"photograph picture image"),
    Rule(r"\blots\b|\bby lot\b|\bfor lots\b", "random, random sampling", r"\bparking lots\b"),
    Rule(r"\b(?:the|beside a|on a) card\b|\b(?:the|graphics) cards\b", "the GPU"),
    Rule(
        r"\bletters?\b",
        "message, message batch",
        r"(?:lower|upper|case|capital|latin|ascii|greek|small|first|single|drive)[ -]?letters?\b"
        r"|\bletters?,? (?:or|and|digits)\b|\b(?:without|only|all) letters\b"
        r"|\b(?:digits|case),? (?:or|and|of) letters?\b|letter-spacing",
    ),
    Rule(r"\bmail(?:s|box|boxes)?\b", "message batch", r"e-mail|mailto|mailing list"),
    Rule(r"\btold\b", "reported, recorded, sent, distinguished"),
    Rule(r"\btells\b(?! (?:\S+ ){1,4}(?:to|not) )", "reports, records, logs, prints"),
    Rule(
        r"\bsays\b",
        "reports, records, states, prints",
        r"\b(?:paper|rfc \d+|specification|standard|documentation) says\b|\bsays otherwise\b",
    ),
    Rule(r"\bhears?\b|\bheard\b", "receives, is sent"),
    Rule(r"\bknows? of\b|\bknows? nothing of\b|\bbelieves?\b", "holds, records, depends on"),
    Rule(r"\bwhoever\b", "the caller, the reader"),
    Rule(r"\b(?:no|some|any)body\b", "no other worker, none, the user"),
    Rule(r"\blest\b|\bthereby\b|\bhence\b", "so that, therefore, or nothing", r"\bhenceforth\b"),
    Rule(r"\bspares\b|\bsparing\b", "saves"),
    Rule(r"\bfireproof\b", "survives storage faults"),
    Rule(r"\bunstoppable\b", "bad samples never stop a run"),
    Rule(r"(?-i:\bNr\b)", "#"),
    # Phrases of programs.
    Rule(
        r"\b(?:had|has|have) (?:its|their|the last) (?:say|word)\b", "suppressed by neighbours picked earlier"
    ),
    Rule(r"\bstands? for (?:it|them)\b", "suppressed by neighbours picked earlier"),
    Rule(r"\blow from the start\b", "score below the threshold"),
    Rule(r"\blost to it\b", "suppression sent"),
    Rule(r"\b(?:took|takes|taken) (?:most |anything |nothing )?from it\b", "suppression received"),
    Rule(r"\bgave it\b", "support received", r"\b(?:user|you|we) gave it\b"),
    Rule(r"\bat work\b", "in progress"),
    Rule(r"\bnothing to do\b", "already complete, skipped", r"\bnothing to do with\b"),
    Rule(r"\bfinished before,", "already complete, skipped"),
    Rule(r"\bhas all of it\b", "up to date"),
    Rule(r"\bfor who\b|\bwho watches\b|\bpeople to watch\b", "for the progress display"),
    Rule(r"\bwhose fault\b|\bwho is at fault\b", "cause"),
    Rule(r"\bwhat (?:became|becomes|had become|has become) of\b", "status, outcome"),
    Rule(
        r"\bmistakes? of (?:yours|the users?'?s?)\b|\buser'?s'? mistakes?\b",
        "usage error, configuration error",
    ),
    Rule(r"\bwords on a command line\b", "argument parsing"),
    Rule(r"\bfeeds no more than\b", "with 1 shard, 3 of 4 data-loader workers are idle"),
    Rule(r"\bis no failure\b", "counts as success"),
    Rule(r"\bthe reason why not\b|\bor why not\b", "Returns X or Reject"),
    # Time and state.
    Rule(r"\bin hand\b", "in flight, prefetched"),
    Rule(r"\bunder way\b", "in flight, in progress"),
    Rule(
        r"\bat once\b",
        "immediately, concurrently",
        r"\b(?:all|both|two|three|four|several|many|most|kinds|layouts|rows|queries|nodes|requests|sorted)"
        r" (?:\S+ ){0,3}at once\b",
    ),
    Rule(r"\bgoes on\b|\bgo on where\b|\bgoes on with\b", "resumes, continues"),
    Rule(r"\bin turns\b", "alternating"),
    Rule(r"\bby the clock\b", "by wall time"),
    Rule(r"\bsigns? of life\b", "renewal"),
    Rule(
        r"\bwhole (?:artifacts?|outputs?|objects?|manifests?|receipts?)\b|\b(?:is|are|looks?) whole\b(?! \w)",
        "complete",
        r"\bthe whole \w+",
    ),
    Rule(
        r"\b(?:all|more|its|their|whose|last|few|of|\d+|two|three|four|eight|ten) tries\b"
        r"|\btries (?:of|are|were|in all)\b|\b(?:another|next|last|first|second|third) try\b",
        "attempts, retries",
    ),
    Rule(r"\bfrom (?:about )?[\d.,]+ ?(?:%|rows|words|samples)? on(?=[.,;:)]|$)", "from 30 % upwards"),
    # Places.
    Rule(
        r"\b(?:lies?|lay|lain|lying) (?:in|at|below|beside|there|here|elsewhere|now|under|behind|outside)\b",
        "is stored in, is in",
        r"\b(?:lies?|lay) in (?:\[|\(|the (?:interval|range))",
    ),
    Rule(r"\bwhere (?:\S+ ){1,3}(?:lies?|lay)\b", "the location, path or URL of"),
    Rule(r"\b(?:a|any|each|every|read-only) place\b", "location, path, URL"),
    Rule(r"\bstorage door\b|\btwo doors\b", "interface"),
    # Constructions.
    Rule(
        r"\bof (?:its|their|our|your|his) own"
        r"(?:(?=[.,;:)]|$)| (?=and |or |for |so |which |that |in |on |at |is |are ))",
        "its own X, a separate X",
    ),
    Rule(r"\bas (?:it is|they are)(?=[.,;:)]|$)", "unchanged, directly"),
    Rule(r"\bso long\b(?! as)", "for that time"),
    Rule(
        r"\b(?:can|cannot|will|must|retries|to) bear\b|\bbears? (?:it|this|that)\b", "handle", r"bear in mind"
    ),
    Rule(r"\bdraws? the line\b|\bline (?:is )?drawn\b", "selection threshold"),
    Rule(r"\bmade-up\b|\bmade up (?:pool|run|data)\b", "synthetic"),
    Rule(
        r"\bintroduc\w+ (?:itself|themselves|each other|members|partitions)\b", "exchange of boundary nodes"
    ),
    Rule(
        r"\b(?:do not|never) meet\b|\bmet in the input\b|\b(?:it|they|a query|queries) met\b",
        "compare, exchange, read",
    ),
    Rule(r"\btakes? (?:\S+ ){0,3}to heart\b|\bwithout a word\b", "say what happens"),
)


@dataclass
class Passage:
    """Text that reads as one, with the line each piece of it comes from."""

    text: str = ""
    starts: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def add(self, text: str, line: int) -> None:
        """Append text that begins in `line`; its own line breaks count on from there."""
        for number, piece in enumerate(text.splitlines(keepends=True)):
            self.starts.append(len(self.text))
            self.lines.append(line + number)
            self.text += piece

    def line_of(self, offset: int) -> int:
        """Return the line of a character of `text`."""
        return self.lines[bisect_right(self.starts, offset) - 1]


def files() -> list[Path]:
    """Return every file whose text is checked, sorted."""
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")]
    for folder in _FOLDERS:
        found += (path for path in (ROOT / folder).rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    # Dashboards are the only JSON with text; the bundled model's is data.
    return sorted(path for path in found if path.suffix != ".json" or path.is_relative_to(ROOT / "deploy"))


def faults(path: Path) -> list[str]:
    """Return `file:line: 'phrase' -> suggestion` for every banned phrase of a file."""
    found = []
    for passage in passages(path):
        for rule in RULES:
            for match in rule.find(passage.text):
                phrase = " ".join(match.group().split())
                found.append((passage.line_of(match.start()), f"{phrase!r} -> {rule.instead}"))
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return [f"{name}:{line}: {what}" for line, what in sorted(found)]


def passages(path: Path) -> Iterator[Passage]:
    """Yield the readable text of a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _of_python(text)
    elif path.suffix == ".html":
        yield from _of_html(text)
    elif path.suffix in (".js", ".css"):
        yield from _of_script(text)
    elif path.suffix == ".md":
        yield from _of_lines(re.sub(r"`[^`\s]+`", lambda code: "`" + "x" * (len(code[0]) - 2) + "`", text))
    else:
        yield from _of_lines(text)


def _of_lines(text: str) -> Iterator[Passage]:
    """Paragraphs, without the marks of comments."""
    passage = Passage()
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.sub(r"^(\s*)#+ ?", r"\1", line)
        if bare.strip():
            passage.add(bare + "\n", number)
        elif passage.text:
            yield passage
            passage = Passage()
    if passage.text:
        yield passage


def _of_python(text: str) -> Iterator[Passage]:
    """Blocks of comments, and strings that are written side by side."""
    passage, last = Passage(), ("", 0)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind in ("NL", "INDENT", "DEDENT", "FSTRING_START", "FSTRING_END"):
            continue
        name = "comment" if kind == "COMMENT" else "string" if kind in ("STRING", "FSTRING_MIDDLE") else ""
        if name != last[0] or (name == "comment" and token.start[0] > last[1] + 1):
            if _is_prose(passage.text):
                yield passage
            passage = Passage()
        if name == "comment":
            passage.add(token.string.lstrip("# ") + "\n", token.start[0])
        elif name == "string":
            opened = re.match(r"\w*(\"\"\"|'''|\"|')", token.string) if kind == "STRING" else None
            inner = token.string[opened.end() : -len(opened[1])] if opened else token.string
            passage.add(re.sub(r"\\n|\{[^{}\n]*\}", "  ", inner), token.start[0])
        last = (name, token.end[0])
    if _is_prose(passage.text):
        yield passage


def _is_prose(text: str) -> bool:
    """Whether a string is meant for a reader: not an identifier, a key, a path or a pattern."""
    return bool(text.strip()) and not re.fullmatch(r"[a-z0-9_./:{}*?$@#=,+-]+", text.strip())


class _Readable(HTMLParser):
    """Collects the text of a page and the labels of its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Passage] = []
        self._script = ""

    def _keep(self, text: str) -> None:
        passage = Passage()
        passage.add(re.sub(r"\{[{%#].*?[}%#]\}", " ", text, flags=re.DOTALL), self.getpos()[0])
        self.found.append(passage)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = tag if tag in ("script", "style") else ""
        for name, value in attrs:
            if name in ("aria-label", "alt", "title", "placeholder") and value:
                self._keep(value)

    def handle_endtag(self, tag: str) -> None:
        self._script = ""

    def handle_data(self, data: str) -> None:
        if not self._script:
            self._keep(data)
            return
        first = self.getpos()[0]
        for passage in _of_script(data):
            passage.lines = [first + line - 1 for line in passage.lines]
            self.found.append(passage)

    def handle_comment(self, data: str) -> None:
        self._keep(data)


def _of_html(text: str) -> Iterator[Passage]:
    page = _Readable()
    page.feed(text)
    page.close()
    yield from page.found


_SCRIPT = re.compile(
    r"/\*(.*?)\*/|(?<![:\w])//([^\n]*)|`((?:\\.|[^`\\])*)`|\"((?:\\.|[^\"\\\n])*)\"|'((?:\\.|[^'\\\n])*)'",
    re.DOTALL,
)


def _of_script(text: str) -> Iterator[Passage]:
    """Comments and strings of JavaScript; comments of CSS."""
    for found in _SCRIPT.finditer(text):
        number = next(index for index in range(1, 6) if found[index] is not None)
        inner = re.sub(r"\$\{[^{}]*\}|<[^<>]*>", "  ", found[number])
        if number <= 2 or _is_prose(inner):
            passage = Passage()
            passage.add(inner, text.count("\n", 0, found.start(number)) + 1)
            yield passage
