"""Read YAML strictly: plain data, with the place of every value.

A file is one document of mappings, lists and scalars. Anchors, aliases, merge keys, tags, duplicate keys and further
documents are refused. Nesting and size are bounded. A plain scalar is null, `true`, `false`, a decimal integer or a
text: YAML 1.1's `no`, `on`, `0o17`, `1_000`, `22:22` and dates stay texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import yaml

from relay.config.errors import Diagnostic, Loc, Mark, plain
from relay.config.masking import Expanded, RunOn

QUICK_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Twenty times as fast, where PyYAML has libyaml. It accepts a few mistakes (tabs) that the usual one refuses."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 16

_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:-)([^}]*))?\}|\$\{")
_NO_TAGS = "tags (!name) aren't supported; a value that begins with ! goes in quotes"
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


class Document:
    """A file's `data`: dict (text keys), tuple, str, Expanded, int, bool, None.

    `broken` are the values that have an error of their own. Whatever else is wrong with them is a consequence.
    """

    __slots__ = ("broken", "data", "diagnostics", "key_marks", "marks", "readable")

    def __init__(self) -> None:
        self.data: Any = None
        self.marks: dict[Loc, Mark] = {}
        self.key_marks: dict[Loc, Mark] = {}
        self.diagnostics: list[Diagnostic] = []
        self.broken: set[Loc] = set()
        self.readable = True
        """False: the text isn't one YAML document, and `data` is of no use"""

    def refuse(self, loc: Loc, message: str, *, at: Literal["value", "key"] = "value") -> None:
        """Add an error about a value, which hides the value's consequences."""
        self.diagnostics.append(Diagnostic(loc, message, at=at))
        self.broken.add(loc)


class NotYaml(Exception):
    """The text isn't YAML from `mark` on."""

    def __init__(self, message: str, mark: Mark) -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark


def read(content: bytes, environ: Mapping[str, str], *, parser: Any = yaml.SafeLoader) -> Document:
    """Parse a configuration file. Every mistake becomes one of the document's `diagnostics`; their texts are made for
    the usual `parser`."""
    document = Document()
    try:
        text = _decoded(content)
        events = _events(text, parser)
        if (first := next(events, None)) is not None:
            document.data = _Builder(document, text, events, environ).value(first, ())
        if (further := next(events, None)) is not None:
            raise NotYaml("a second document begins here; a configuration is one document", _mark(further.start_mark))
    except NotYaml as error:
        document.diagnostics.append(Diagnostic((), error.message, mark=error.mark))
        document.readable = False
    return document


def _decoded(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise NotYaml(f"the file is larger than {MAX_BYTES // 1024} KiB", Mark(1, 1))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotYaml("the file isn't UTF-8", _mark_at(content[: error.start].decode("latin-1"))) from None
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        code = ord(unprintable[0])
        raise NotYaml(f"a control character (U+{code:04X})", _mark_at(text[: unprintable.start()]))
    return text


def _mark_at(before: str) -> Mark:
    return Mark(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


_STRUCTURE = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)


def _events(text: str, parser: Any) -> Iterator[Any]:
    """The parser's events. It has its own stack, so nesting costs no recursion here. Raises NotYaml."""
    try:
        for event in yaml.parse(text, Loader=parser):
            if not isinstance(event, _STRUCTURE):
                yield event
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.context_mark and error.problem in _BEGUN_EARLIER:
            mark = error.context_mark
        if (quote := _open_quote(text, parser)) is not None:
            raise quote from None
        raise NotYaml(_reason(text, error), _mark(mark) if mark else Mark(1, 1)) from None
    except yaml.YAMLError:
        raise NotYaml("the file isn't YAML", Mark(1, 1)) from None


_IS_STRUCTURE = re.compile(r"""[ ]*(?:\#|-[ ]|["']?[\w.@*/<-]+["']?[ ]*:(?:[ ]|$))""")
"""a line of YAML structure: a key, an entry of a list, a comment"""


def _open_quote(text: str, parser: Any) -> NotYaml | None:
    """The first quote that isn't closed in its line, in a text that isn't YAML.

    The next quote closes it, lines later, so the parser notices the mistake far behind its place.
    """
    lines = text.split("\n")
    try:
        for token in yaml.scan(text, Loader=parser):
            if not isinstance(token, yaml.ScalarToken) or token.style not in ("'", '"'):
                continue
            begin, end = token.start_mark, token.end_mark
            # A quoted text may span several lines, but those don't look like structure.
            if any(_IS_STRUCTURE.match(line) for line in lines[begin.line + 1 : end.line + 1]):
                what = f"the quote that opens here is closed by the next one, in line {end.line + 1}"
                return NotYaml(f"not YAML: {what}", _mark(begin))
    except yaml.MarkedYAMLError as error:
        if error.context == "while scanning a quoted scalar" and error.problem == "found unexpected document separator":
            return NotYaml(_BEGUN_EARLIER["found unexpected end of stream"], _mark(error.context_mark))
    return None


_BEGUN_EARLIER: Mapping[str, str] = {
    "could not find expected ':'": "not YAML: a colon is missing, or the indentation is wrong",
    "found unexpected end of stream": "not YAML: what begins here is never closed",
}
"""problems that PyYAML notices behind their place"""


def _reason(text: str, error: Any) -> str:
    """PyYAML's error as a sentence that names the likely mistake."""
    problem = str(error.problem or "the file isn't YAML")
    if "tag handle" in problem:  # PyYAML quotes the tag, which may be the beginning of a password
        return _NO_TAGS
    line = ""
    if error.problem_mark is not None:
        line = text.split("\n")[error.problem_mark.line] if error.problem_mark.line <= text.count("\n") else ""
    if "\\t" in problem or line[: len(line) - len(line.lstrip())].count("\t"):
        return "a tab; YAML is indented with blanks"
    if problem in _BEGUN_EARLIER:
        return _BEGUN_EARLIER[problem]
    if error.context in ("while scanning an alias", "while scanning an anchor"):
        return f"not YAML: a value that begins with {'*' if 'alias' in error.context else '&'} goes in quotes"
    if problem.startswith("expected <block end>"):
        return "not YAML: wrong indentation, or something left over in the line"
    if "cannot start any token" in problem:
        return f"not YAML: {problem}; a value that begins with it goes in quotes"
    if "mapping values are not allowed here" in problem:
        return "not YAML: a second colon in the line, or wrong indentation; a value with ': ' in it goes in quotes"
    return f"not YAML: {problem}"


class _Builder:
    """Builds the data of one document from its events."""

    def __init__(self, document: Document, text: str, events: Iterator[Any], environ: Mapping[str, str]) -> None:
        self.document = document
        self.text = text
        self.events = events
        self.environ = environ

    def value(self, event: Any, loc: Loc) -> Any:
        self.document.marks[loc] = _mark(event.start_mark)
        if len(loc) > MAX_DEPTH:
            raise NotYaml(f"nested more than {MAX_DEPTH} levels deep", _mark(event.start_mark))
        if isinstance(event, yaml.AliasEvent):
            self.document.refuse(loc, "aliases (*name) aren't supported; a value that begins with * goes in quotes")
            return Expanded("alias", {"alias": "alias"})
        if event.anchor is not None:
            self.document.refuse(loc, "anchors (&name) aren't supported; a value that begins with & goes in quotes")
        if event.tag is not None:
            self.document.refuse(loc, _NO_TAGS)
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(loc)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(loc)
        return self.scalar(event, loc)

    def mapping(self, loc: Loc) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            mark = _mark(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent):
                hint = "; a key that begins with * goes in quotes" if isinstance(event, yaml.AliasEvent) else ""
                # Nothing after this can be paired with its key.
                raise NotYaml(f"a key must be a word{hint}", mark)
            key = str(event.value)
            at = (*loc, key)
            value = next(self.events)
            if ":" not in key and self.lacks_colon(value):
                # Not a key, so no error may show it: after a typing mistake it can be a password.
                message = "expected key: value, got a word without a colon"
                self.document.diagnostics.append(Diagnostic(loc, message, mark=mark))
                continue
            if key in data:
                message = f"duplicate key; it stands in line {lines[key]} already"
                self.document.diagnostics.append(Diagnostic(at, message, mark=mark))
                _Builder(Document(), self.text, self.events, self.environ).value(value, at)
                continue
            self.document.key_marks[at] = mark
            lines[key] = mark.line
            data[key] = self.value(value, at)
            if event.anchor is not None or event.tag is not None:
                self.document.refuse(at, "anchors and tags aren't supported")
            elif key == "<<" and event.implicit[0]:
                self.document.refuse(at, "merge keys (<<) aren't supported; write the keys out")
        return data

    def lacks_colon(self, value: Any) -> bool:
        """Whether the parser supplied this empty value, as for `{word}`. An empty value behind a colon touches it."""
        at, end = value.start_mark.index, value.end_mark.index
        return isinstance(value, yaml.ScalarEvent) and at == end and self.text[at - 1 : at] != ":"

    def sequence(self, loc: Loc) -> tuple[Any, ...]:
        data: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            data.append(self.value(event, (*loc, len(data))))
        return tuple(data)

    def scalar(self, event: Any, loc: Loc) -> Any:
        text = str(event.value)
        if event.implicit[0]:  # a plain scalar
            if text in _NULL:
                return None
            if text in ("true", "false"):
                return text == "true"
            if _INTEGER.fullmatch(text):
                return int(text)
            if event.start_mark.line != event.end_mark.line and "${" not in text:
                return RunOn(text)
        return self.expanded(text, loc) if "${" in text else text

    def expanded(self, text: str, loc: Loc) -> str | None:
        """Substitute `${NAME}` and `${NAME:-default}` (also where NAME is empty, as in a shell); `$${` is a literal
        `${`. A value that comes out empty counts as not given."""
        variables: dict[str, str] = {}
        is_expanded = False
        unset: list[str] = []

        def substitute(found: re.Match[str]) -> str:
            if found[0] == "$${":
                return "${"
            if found[1] is None:
                self.document.refuse(loc, "expected ${NAME} or ${NAME:-default} (a literal ${ is written $${)")
                return ""
            nonlocal is_expanded
            is_expanded = True
            value = self.environ.get(found[1])
            if value:
                variables[found[1]] = value  # a default stands in the file, and is no secret for that
            if found[2] is not None:
                return value or found[3]
            if value is None:
                unset.append(found[1])
            return value or ""

        result = _VARIABLE.sub(substitute, text)
        for name in map(plain, unset):
            self.document.refuse(loc, f"the environment variable {name} isn't set; ${{{name}:-...}} has a default")
        if loc in self.document.broken:
            return Expanded("unset", {"unset": "unset"})
        if not is_expanded:
            return result
        return Expanded(result, variables) if result else None
