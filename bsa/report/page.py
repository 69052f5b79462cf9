"""The page around the pictures: one HTML file that needs no other, light or dark as preferred."""

from html import escape
from typing import NamedTuple

from bsa.report import scrubber
from bsa.svg import FONT

# Nothing is loaded from anywhere: the browser is told to refuse it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_STYLE = f"""\
:root {{ color-scheme: light dark; --ground: #fff; --ink: #1f2933; --faint: #52606d;
  --line: #d9dee3; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ground: #16191d; --ink: #e4e7eb; --faint: #a3adb8; --line: #343a42; }}
}}
body {{ max-width: 1080px; margin: 0 auto; padding: 24px 16px 64px; font: 15px/1.45 {FONT};
  background: var(--ground); color: var(--ink); }}
h1 {{ margin: 0; font-size: 26px; overflow-wrap: anywhere; }}
h2 {{ margin: 48px 0 4px; font-size: 20px; border-top: 1px solid var(--line); padding-top: 20px; }}
p, .facts small {{ margin: 0 0 12px; color: var(--faint); }}
nav {{ display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 16px 0; }}
a {{ color: inherit; }}
.facts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 16px;
  margin: 20px 0; }}
.facts b {{ display: block; font-size: 20px; }}
.facts span, .facts small {{ display: block; font-size: 13px; }}
.wide {{ overflow-x: auto; font-size: 13px; }}
table {{ border-collapse: collapse; margin: 8px 0; }}
th, td {{ padding: 3px 12px 3px 0; text-align: right; font-variant-numeric: tabular-nums;
  border-bottom: 1px solid var(--line); white-space: nowrap; }}
pre {{ overflow-x: auto; font-size: 13px; line-height: 1.5; }}
svg {{ margin: 16px 0 !important; }}
{scrubber.STYLE}"""


class Section(NamedTuple):
    """A heading with what is below it: a note as text, and a body as HTML."""

    id: str
    title: str
    note: str
    body: str


def page(title, subtitle, facts, sections):
    """The HTML. `facts`: (name, value, remark) of each, as texts."""
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{escape(subtitle)}</p>
<div class="facts">{"".join(map(_fact, facts))}</div>
<nav>{"".join(map(_link, sections))}</nav>
<main>
{"".join(map(_section, sections))}</main>
</body>
</html>
"""


def _fact(fact):
    name, value, remark = map(escape, fact)
    return f"<div><span>{name}</span><b>{value}</b><small>{remark}</small></div>"


def _link(section):
    return f'<a href="#{section.id}">{escape(section.title)}</a>'


def _section(section):
    return (
        f'<section id="{section.id}">\n<h2>{escape(section.title)}</h2>\n'
        f"<p>{escape(section.note)}</p>\n{section.body}\n</section>\n"
    )
