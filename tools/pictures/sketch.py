"""The sketch: apps, the relay with its two lanes, providers."""

from __future__ import annotations

from tools.pictures.svg import box, document, ground, text

WIDTH, HEIGHT = 760, 330
_BOX = "fill:var(--box);stroke:var(--frame);stroke-width:1.5"
_HEAD = """\
<defs><marker id="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0L8 4L0 8z" style="fill:var(--{kind})"/></marker></defs>"""


def sketch() -> str:
    title = (
        "Apps hand mail to the relay by SMTP or HTTP. The relay stores it, chooses a lane, signs it. Codes go to the"
        " first provider over open connections, to the second if the first fails. Bulk mail goes by a lane of its own."
    )
    pieces = [
        ground(WIDTH, HEIGHT),
        *(_HEAD.format(kind=kind) for kind in ("codes", "bulk", "faint")),
        *_apps(),
        *_relay(),
        *_providers(),
        *_arrows(),
    ]
    return document(WIDTH, HEIGHT, title, "\n".join(pieces))


def _apps() -> list[str]:
    pieces = [text(85, 40, "Your apps", size=15, kind="bold", anchor="middle")]
    names = (("Sign-in", "codes"), ("Password reset", "codes"), ("Shop, newsletter", "bulk"))
    for at, (name, kind) in enumerate(names):
        y = 74 + 64 * at
        pieces += [box(22, y, 126, 44, _BOX), text(85, y + 27, name, kind=kind, anchor="middle")]
    return pieces


def _relay() -> list[str]:
    lanes = [
        box(340, 70, 198, 84, "fill:var(--codes-ground);stroke:var(--codes);stroke-width:1.5"),
        text(356, 95, "Lane otp", size=14, kind="codes bold"),
        text(356, 115, "connections already open", size=12),
        text(356, 132, "failover at once; expires", size=12),
        box(340, 172, 198, 84, "fill:var(--bulk-ground);stroke:var(--bulk);stroke-width:1.5"),
        text(356, 197, "Lane bulk", size=14, kind="bulk bold"),
        text(356, 217, "own queue, own rate", size=12),
        text(356, 234, "retries for days", size=12),
    ]
    first = [
        box(216, 70, 100, 186, _BOX),
        *(text(266, y, word, size=12.5, anchor="middle") for y, word in _STEPS),
        text(266, 120, "(then 250)", size=11.5, kind="faint", anchor="middle"),
    ]
    return [
        box(200, 16, 354, 298, "fill:none;stroke:var(--text);stroke-width:1.5", radius=12),
        text(216, 46, "otp-relay", size=16, kind="bold"),
        text(538, 46, "on localhost", kind="faint", anchor="end"),
        *first,
        *lanes,
        text(377, 282, "log, metrics, console: where the time went", size=12.5, anchor="middle"),
        text(377, 300, "events back to your apps", size=12, kind="faint", anchor="middle"),
    ]


def _providers() -> list[str]:
    pieces = [text(675, 40, "Your providers", size=15, kind="bold", anchor="middle")]
    for y, name, about in ((84, "Provider A", "Postmark, SES, ..."), (186, "Provider B", "or your own server")):
        pieces += [
            box(616, y, 118, 56, _BOX),
            text(675, y + 24, name, kind="bold", anchor="middle"),
            text(675, y + 42, about, size=11.5, kind="faint", anchor="middle"),
        ]
    return pieces


def _arrows() -> list[str]:
    return [
        *(_arrow(f"M148 {y}C174 {y} 180 {at} 212 {at}", kind) for y, at, kind in _FROM_APPS),
        text(85, 272, "by SMTP, HTTP", size=12, kind="faint", anchor="middle"),
        text(85, 288, "or sendmail", size=12, kind="faint", anchor="middle"),
        _arrow("M316 112H336", "codes"),
        _arrow("M316 214H336", "bulk"),
        _arrow("M538 108H612", "codes", width=3),
        _arrow("M538 132C580 134 576 196 612 200", "codes", dashed=True),
        text(594, 160, "failover", size=12, kind="codes"),
        _arrow("M538 220H612", "bulk"),
        _arrow("M675 242V296H558", "faint", dashed=True),
        text(624, 313, "delivered, bounced", size=12, kind="faint", anchor="middle"),
    ]


_STEPS = ((104, "store"), (142, "rules,"), (159, "detector"), (197, "limits"), (232, "DKIM"))
_FROM_APPS = ((96, 130, "codes"), (160, 160, "codes"), (224, 190, "bulk"))


def _arrow(path: str, kind: str, *, width: float = 2, dashed: bool = False) -> str:
    dashes = ";stroke-dasharray:5 4" if dashed else ""
    style = f"fill:none;stroke:var(--{kind});stroke-width:{width:g}{dashes}"
    return f'<path d="{path}" marker-end="url(#{kind})" style="{style}"/>'
