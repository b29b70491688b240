"""Reports as sections of text, tables and pictures, saved as HTML, Markdown or JSON."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from sklearn.base import BaseEstimator

from ehrmeta.errors import DataError
from ehrmeta.report.displays._base import Display

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TextTable:
    """A table of text. On an HTML page, readers can sort a `sortable` table by any column."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sortable: bool = False


@dataclass(frozen=True)
class Picture:
    """An SVG drawing with its description, and a name by which readers choose it from several."""

    svg: str
    words: str
    name: str = ""

    @classmethod
    def of(cls, display: Display, key: str, words: str, name: str = "") -> Picture:
        """Render a display and close its figure; ids in the SVG start with `key`."""
        return cls(_svg_of(display.figure_, key), words, name)


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, then tables, then pictures.

    If `pick` has a label, an HTML page shows one picture at a time, chosen by name.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[TextTable, ...] = ()
    pictures: tuple[Picture, ...] = ()
    pick: str = ""


@dataclass(frozen=True)
class Document:
    """A report; `save` writes it in the format of the file's suffix.

    Examples
    --------
    >>> page = Document("HDL", (Section("Data", ("40 patients <18 years",)),))
    >>> print(page.to_markdown())
    # HDL
    <BLANKLINE>
    ## Data
    <BLANKLINE>
    40 patients &lt;18 years
    >>> "40 patients &lt;18 years" in page.to_html()
    True
    """

    title: str
    sections: tuple[Section, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to ``.html``, ``.md`` or ``.json``.

        Raises
        ------
        DataError
            The suffix is not one of these, or the file cannot be written.
        """
        form = self.check_path(path)
        try:
            Path(path).write_text(self._forms[form]() + "\n", encoding="utf-8")
        except OSError as error:
            raise _cannot_write(path, str(error.strerror)) from error

    def check_path(self, path: str | os.PathLike[str]) -> str:
        """Suffix of a report's path; raises `DataError` if no report can be written there."""
        form = Path(path).suffix.lower()
        if form not in self._forms:
            raise DataError(
                f"'{os.fspath(path)}': reports cannot be saved with the suffix '{form}'. Use "
                f"{', '.join(self._forms)}."
            )
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            raise _cannot_write(path, "its folder does not exist")
        if not os.access(folder, os.W_OK):
            raise _cannot_write(path, "its folder cannot be written to")
        if Path(path).is_dir():
            raise _cannot_write(path, "it is a folder")
        return form

    @property
    def _forms(self) -> dict[str, Callable[[], str]]:
        return {".html": self.to_html, ".md": self.to_markdown, ".json": self.to_json}

    def to_html(self) -> str:
        """One HTML page without external resources. Text is escaped, the script pinned by hash."""
        loader = jinja2.PackageLoader("ehrmeta.report", "")
        environment = jinja2.Environment(
            loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        script = environment.get_template("document.js").render()
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        return environment.get_template("document.html").render(
            document=self, script=script, script_hash=f"sha256-{digest}"
        )

    def to_markdown(self) -> str:
        """Markdown with headings, paragraphs and tables; descriptions replace pictures."""
        blocks = [f"# {_plain(self.title)}"]
        for section in self.sections:
            blocks.append(f"## {_plain(section.title)}")
            blocks += [_plain(paragraph) for paragraph in section.paragraphs]
            for table in section.tables:
                lines = [table.headings, ("---",) * len(table.headings), *table.rows]
                cells = ["| " + " | ".join(map(_plain, line)) + " |" for line in lines]
                blocks += [f"**{_plain(table.caption)}**", "\n".join(cells)]
            blocks += [f"*Picture: {_plain(picture.words)}*" for picture in section.pictures]
        return "\n\n".join(blocks)

    def to_json(self) -> str:
        """JSON of all parts; descriptions replace pictures."""
        content = asdict(self)
        for section in content["sections"]:
            section["pictures"] = [picture["words"] for picture in section["pictures"]]
        return json.dumps(content, indent=1, ensure_ascii=False)


def _cannot_write(path: str | os.PathLike[str], reason: str) -> DataError:
    return DataError(
        f"cannot write '{os.fspath(path)}': {reason}. Pass the path of a file in an existing, "
        "writable folder."
    )


def model_card(model: BaseEstimator, facts: Sequence[tuple[str, str]], words: str) -> Section:
    """Section on a model: class, facts about the fit, and settings."""
    rows = [("model", type(model).__name__), *facts]
    settings = model.get_params(deep=False)
    rows += [(name, repr(value)) for name, value in settings.items() if name != "schema"]
    return Section("Model card", (words,), (TextTable("Settings", ("name", "value"), tuple(rows)),))


def _svg_of(figure: Figure, key: str) -> str:
    """Render a figure as a self-contained SVG element, and close it.

    All ids in the SVG start with `key`, so that drawings on one page do not share ids.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    target = io.StringIO()
    # keeps text as text, and makes ids reproducible
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ehrmeta"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = target.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{key}-", svg)


def _plain(text: str) -> str:
    """Text escaped for Markdown, on one line."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"([\\`*_|\[\]#!])", r"\\\1", escaped)
    return " ".join(escaped.split())
