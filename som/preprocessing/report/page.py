"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from html import escape

from som.files import encode_image
from som.preprocessing.report.contents import Picture, Report, Section, Stage

JPEG_QUALITY = 82
STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1c2027; --soft: #5d6675; --line: #dfe3e9;
  --good: #1f7a4d; --doubtful: #a86400; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1d2026; --text: #e6e9ee; --soft: #98a1b0;
  --line: #30353e; --good: #58c08c; --doubtful: #e3a646; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1500px; padding: 28px 24px 60px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 24px; margin: 0 0 14px; }
h2 { font-size: 18px; margin: 34px 0 2px; }
p { margin: 4px 0 12px; max-width: 95ch; color: var(--soft); }
.verdict, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px; }
.verdict { border-left: 6px solid var(--grade); margin-bottom: 16px; }
.verdict strong { font-size: 17px; color: var(--grade); }
.good { --grade: var(--good); } .doubtful { --grade: var(--doubtful); } .bad { --grade: var(--bad); }
.verdict ul { margin: 8px 0 0; padding-left: 20px; } .verdict li { margin: 4px 0; }
.verdict li b { font-weight: 600; }
.columns { display: grid; grid-template-columns: minmax(300px, 2fr) minmax(420px, 3fr); gap: 16px; align-items: start; }
@media (max-width: 900px) { .columns { grid-template-columns: 1fr; } }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: 5px 10px 5px 0; vertical-align: top; border-top: 1px solid var(--line); }
tr:first-child > * { border-top: 0; }
th { font-weight: 500; color: var(--soft); white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.state { display: inline-block; min-width: 64px; text-align: center; border-radius: 20px; padding: 0 10px;
  font-size: 13px; color: var(--card); background: var(--soft); }
.state.done, .state.given { background: var(--good); } .state.failed { background: var(--bad); }
details summary { cursor: pointer; } details table { font-size: 13px; margin-top: 4px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(var(--column, 290px), 1fr)); gap: 12px;
  align-items: start; }
figure { margin: 0; }
img { display: block; width: 100%; border-radius: 6px; cursor: zoom-in; background: var(--line); }
img:focus { position: fixed; inset: 2vmin; width: auto; height: auto; max-width: 96vw; max-height: 96vh;
  min-height: 80vh; margin: auto; object-fit: contain; z-index: 9; cursor: zoom-out; outline: 100vmax solid #000c; }
figcaption { font-size: 13px; color: var(--soft); margin-top: 3px; }
"""


def render_page(report: Report) -> str:
    """The whole page, with its pictures inside."""
    body = [f"<h1>{escape(report.title)}</h1>", _verdict(report)]
    tables = [_facts(report)] if report.facts else []
    tables += [_stages(report.stages)] if report.stages else []
    body += [f'<div class="columns">{"".join(tables)}</div>'] if len(tables) == 2 else tables
    body += [_section(section) for section in report.sections]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _verdict(report: Report) -> str:
    items = [f"<li>{escape(problem)}</li>" for problem in report.problems]
    items += [f"<li><b>{escape(stage)}:</b> {escape(text)}</li>" for stage, text in report.warnings]
    listed = f"<ul>{''.join(items)}</ul>" if items else ""
    return f'<div class="verdict {report.grade}"><strong>{escape(report.verdict)}</strong>{listed}</div>'


def _facts(report: Report) -> str:
    rows = "".join(f"<tr><th>{escape(label)}</th><td>{escape(text)}</td></tr>" for label, text in report.facts)
    return f'<div class="card"><table>{rows}</table></div>'


def _stages(stages: list[Stage]) -> str:
    rows = []
    for stage in stages:
        method = escape(stage.method)
        if stage.findings:
            found = "".join(
                f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in plain_rows(stage.findings)
            )
            method = f"<details><summary>{method or 'findings'}</summary><table>{found}</table></details>"
        state = f'<span class="state {escape(stage.state)}">{escape(stage.state)}</span>'
        rows.append(
            f"<tr><th>{escape(stage.name)}</th><td>{state}</td><td>{method}</td>"
            f'<td class="number">{stage.seconds:.1f} s</td></tr>'
        )
    return f'<div class="card"><table>{"".join(rows)}</table></div>'


def plain_rows(findings: dict, prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) of findings, nested names joined by dots; long lists are shortened."""
    rows = []
    for key, value in findings.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            rows += plain_rows(value, f"{name}.")
        elif isinstance(value, list):
            more = f", ... ({len(value)} in all)" if len(value) > 12 else ""
            rows.append((name, ", ".join(_plain(item) for item in value[:12]) + more if value else "none"))
        else:
            rows.append((name, _plain(value)))
    return rows


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _section(section: Section) -> str:
    pictures = "".join(_figure(picture) for picture in section.pictures)
    upright = sum(p.image.shape[0] > p.image.shape[1] for p in section.pictures) > len(section.pictures) / 2
    column = ' style="--column: 150px"' if upright else ""
    head = f"<h2>{escape(section.title)}</h2><p>{escape(section.explanation)}</p>"
    return f'{head}<div class="pictures"{column}>{pictures}</div>'


def _figure(picture: Picture) -> str:
    data = base64.b64encode(encode_image(picture.image, ".jpg", JPEG_QUALITY)).decode()
    caption = escape(picture.caption)
    image = f'<img tabindex="0" alt="{caption}" src="data:image/jpeg;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
