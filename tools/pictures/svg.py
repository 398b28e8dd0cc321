"""What the pictures share: colours for light and dark, and elements of SVG as text."""

from __future__ import annotations

from html import escape

FONT = "-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
STYLE = f"""\
svg{{--ground:#fff;--frame:#d0d7de;--text:#1f2328;--faint:#59636e;--box:#f6f8fa;
--codes:#1a7f37;--codes-ground:#e6f6ea;--bulk:#0b7285;--bulk-ground:#e3f4f8;--other:#bc4c00}}
@media (prefers-color-scheme:dark){{
svg{{--ground:#0d1117;--frame:#3d444d;--text:#f0f6fc;--faint:#9198a1;--box:#151b23;
--codes:#3fb950;--codes-ground:#12261e;--bulk:#39c5cf;--bulk-ground:#0f2530;--other:#f0883e}}}}
text{{font-family:{FONT};fill:var(--text)}}
.faint{{fill:var(--faint)}}.codes{{fill:var(--codes)}}.bulk{{fill:var(--bulk)}}.other{{fill:var(--other)}}
.bold{{font-weight:600}}"""
"""Each picture has a ground of its own: a page in the other colour scheme doesn't make it unreadable."""


def document(width: int, height: int, title: str, body: str, style: str = STYLE) -> str:
    """A whole SVG file. `title` is read aloud by screen readers."""
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t">'
    return f'{head}\n<title id="t">{escape(title)}</title>\n<style>{style}</style>\n{body}\n</svg>\n'


def ground(width: int, height: int) -> str:
    return box(0.5, 0.5, width - 1, height - 1, "fill:var(--ground);stroke:var(--frame)", radius=10)


def box(x: float, y: float, width: float, height: float, style: str, radius: float = 8) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" style="{style}"/>'


def text(x: float, y: float, content: str, *, size: float = 13, kind: str = "", anchor: str = "start") -> str:
    """`kind`: classes of STYLE; `y` is the base line."""
    classes = f' class="{kind}"' if kind else ""
    placed = f'x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"'
    return f"<text {placed}{classes}>{escape(content)}</text>"
