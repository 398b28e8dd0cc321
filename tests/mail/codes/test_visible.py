"""HTML is read as its reader sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.codes.reading import text_of_lines
from relay.mail.codes.visible import MOST_TAGS, visible_text

SEEN = [
    ("<p>a</p><p>b</p>", ["a", "b"]),
    ("a<br>b<BR/>c", ["a", "b", "c"]),
    ("<b>1</b><i>2</i><span\nclass='x'>3</span>", ["123"]),
    ("<tr><td>a</td><td>b</td></tr><tr><td>c</td></tr>", ["a\t\tb", "c"]),
    ("a\n  b\tc", ["a b c"]),
    ("1 &lt; 2 &amp; 3 &#52; &#x35; &eacute; &nosuch; &", ["1 < 2 & 3 4 5 é &nosuch; &"]),
    ("a<!-- b -->c<!-- d", ["ac"]),
    ("a<style>b</style>c<script>d</script>e<title>f</title>g", ["aceg"]),
    ("a<style>b", ["a"]),
    ("a<STYLE type=x>b</Style >c", ["ac"]),
    ("1 < 2 and 3 > 2", ["1 < 2 and 3 > 2"]),
    ("a<p style='display:none'>b<p>c", ["a"]),
    ("a<div style='DISPLAY : NONE'>b<div>c</div>d</div>e", ["a", "e"]),
    ("a<span style='font-size:0px'>b</span>c", ["ac"]),
    ("a<span style='font-size:0.9em'>b</span>c", ["abc"]),
    ("a<span style='opacity:0.5'>b</span>c", ["abc"]),
    ("a<span hidden>b</span>c", ["ac"]),
    ("a<span class='is hidden here'>b</span>c", ["abc"]),
    ("a<span class='x' HIDDEN=''>b</span>c", ["ac"]),
    ("a<img style='display:none' src=x>b", ["ab"]),
    ("İİİ<p>x</p><p style='display:none'>y</p>z", ["İİİ", "x", "z"]),
    ("<p>unclosed <b>bold", ["unclosed bold"]),
    ("<3 hearts", ["<3 hearts"]),
    ("", []),
]


@pytest.mark.parametrize(("html", "lines"), SEEN)
def test_lines_are_what_a_reader_sees(html: str, lines: list[str]) -> None:
    assert text_of_lines(visible_text(html)).lines == lines


def test_what_stands_behind_too_many_tags_is_not_looked_at() -> None:
    html = "<p>first</p>" + "<b>x</b>" * MOST_TAGS + "<p>last</p>"
    text = visible_text(html)
    assert "first" in text
    assert "last" not in text


def test_tags_of_comments_and_styles_do_not_count() -> None:
    html = "<p>first</p><style>" + "<" * MOST_TAGS + "</style><p>last</p>"
    assert text_of_lines(visible_text(html)).lines == ["first", "last"]


def test_a_long_line_is_looked_at_in_pieces_to_its_end() -> None:
    words = " ".join(f"word{number:05}" for number in range(1_000))
    lines = text_of_lines(words).lines
    assert max(map(len, lines)) <= 600
    assert "".join(lines) == words


def test_a_link_is_counted_and_cut_and_the_sentence_behind_it_stays() -> None:
    text = text_of_lines(
        "点击https://a.example/x/482913，验证码4821。 Mail ann@example.com or see www.example.com/1234 now"
    )
    assert text.links == 1
    assert "482913" not in text.lines[0]
    assert "4821" in text.lines[0]
    assert "example.com" not in text.lines[0]
    assert text.lines[0].endswith(" now")


TOKENS = st.sampled_from(
    ["<p>", "</p>", "<", ">", "<!--", "-->", "<style>", "</style>", "&#49;", "&", "a", " ", "\n", "<td", "'", '"',
     "<p style='display:none'>", "</div>", "<div hidden>", "İ", "é", "\u200b", "&nbsp;", "ß"]
)  # fmt: skip


@given(st.one_of(st.lists(TOKENS, max_size=40).map("".join), st.text(max_size=80)))
def test_no_html_breaks_it(html: str) -> None:
    text_of_lines(visible_text(html))
